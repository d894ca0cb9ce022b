import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from common.bundle import PROGRAM, Bundle, save_bundle
from common.calibration import probabilities
from common.classes import ClassMap
from common.data.augmentation import turn
from common.data.preparation import centre_crop, prepare_cases, whole_frame
from common.data.readers import read_lesion_images
from common.data.synthetic import synthetic_lesion_images, write_class_folders
from common.errors import BundleDamaged, DataNotFound, DataUnfit, UnknownLabel
from common.metrics import ScoreCounts, summarize
from common.qana.convert import keras_spikes_and_logits
from common.qana.networks import network
from common.reliability import reliability
from server import model_evaluation
from server.commands.model import model
from tests.model_command.conftest import CODES, RUN
from tests.qana.tiny import TINY, tiny_weights


def invoke(*arguments: Any) -> Result:
    return CliRunner().invoke(model, [str(a) for a in arguments], catch_exceptions=False)


def told(*arguments: Any) -> dict[str, Any]:
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.output
    value = json.loads(result.stdout)
    assert isinstance(value, dict)
    return value


def test_describe_tells_card_fit_layers_and_spikes(out: Path) -> None:
    shown = invoke("describe", f"{RUN}:2", "--out", out).stdout
    for expected in (
        f"{RUN}:2",
        "version 1",
        "bkl, mel, nv",
        "32 x 32 RGB",
        "stem 8, stages 8 (strides 1; depth 1), transform 8, spikes 16",
        "verified: float.npz, program.fbz, quantized.npz",
        "AKD1500",
        "s0b0_features",
        "3 x 3 x 8 x 10",
        "per image, mean of lesions of 2 sites",
        "15.0",
    ):
        assert expected in shown, expected
    assert shown.count("not measured") == 2


def test_describe_as_json(out: Path, bundle: Bundle) -> None:
    value = told("describe", out / RUN / "versions" / "2")
    floating, quantized, _ = tiny_weights()
    moving = sum(w.size for n, w in floating.items() if "moving" in n)
    assert value["parameters"] == {
        "float": sum(w.size for w in floating.values()) - moving,
        "quantized": sum(w.size for w in quantized.values()),
    }
    assert value["hashes"] == "verified" and value["sha256"] == bundle.card.sha256
    assert value["fit"] == bundle.card.fit and value["fit"]["AKD1000"]["fits"]
    assert value["latency_ms"] is None and value["mean_spikes"] == {}


def test_describe_counts_events_on_images(out: Path, data: Path) -> None:
    folder = out / RUN / "versions" / "2"
    value = told("describe", folder, "--data", data)
    events = tiny_weights()[2].mean_spikes(
        prepare_cases(
            read_lesion_images(data, ClassMap(CODES)), ClassMap(CODES), size=TINY.input_size
        ).images
    )
    assert value["mean_spikes"] == pytest.approx(events)
    assert value["events"] == pytest.approx(sum(events.values()))
    assert value["mean_spikes_images"] > 0
    shown = invoke("describe", folder, "--data", data).stdout
    assert f"per image, mean of {value['mean_spikes_images']} images" in shown
    assert "--data DIR" in invoke("describe", folder).stdout


@pytest.mark.parametrize("chunk", [7, 256])
@pytest.mark.parametrize("backend", model_evaluation.BACKENDS)
def test_evaluate_gives_the_numbers_of_the_network_itself(
    backend: str, chunk: int, out: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = ClassMap(CODES)
    cases = prepare_cases(read_lesion_images(data, classes), classes, size=TINY.input_size)
    floating, quantized, program = tiny_weights()
    net = network("float", TINY, len(CODES))
    net.set_weights(floating)
    logits = {
        "float": lambda: net.logits(cases.images),
        "quantized": lambda: keras_spikes_and_logits(quantized, TINY, 3, cases.images)[1],
        "akida": lambda: program.predict_potentials(cases.images),
    }[backend]()
    counts = ScoreCounts.from_logits(logits, cases.labels)
    monkeypatch.setattr(model_evaluation, "CHUNK", chunk)
    value = told("evaluate", f"{RUN}:2", "--out", out, "--data", data, "--backend", backend)
    assert value["images"] == len(cases) > 40
    assert value["confusion"] == counts.confusion.tolist()
    assert value["metrics"] == summarize(counts, CODES).to_json()
    assert value["agreement"] is None and value["skipped"] == {}


def test_all_symmetries_are_judged_together_and_the_conversion_by_itself(
    out: Path, data: Path
) -> None:
    options = ("evaluate", f"{RUN}:2", "--out", out, "--data", data, "--all-symmetries")
    value = told(*options, "--agreement")
    classes, program = ClassMap(CODES), tiny_weights()[2]
    images = prepare_cases(read_lesion_images(data, classes), classes, size=TINY.input_size)
    views = [turn(images.images, np.full(len(images), s)) for s in range(8)]
    scores = np.mean([program.predict_potentials(view) for view in views], axis=0)
    counts = ScoreCounts.from_logits(scores, images.labels)
    assert value["metrics"] == summarize(counts, CODES).to_json()
    assert value["all_symmetries"] is True
    assert value["agreement"]["images"] == len(images)
    assert value["agreement"]["equal_predictions"] == len(images)
    assert "mean over the 8 symmetries" in invoke(*options).stdout
    assert "one view of each image" in invoke(*options[:-1]).stdout


def test_a_version_is_judged_by_the_views_that_its_sites_answer_by(
    bundle: Bundle, data: Path, tmp_path: Path
) -> None:
    card = bundle.card.model_copy(update={"all_symmetries": True})
    save_bundle(Bundle(card, bundle.files), tmp_path / "eight")
    options = ("evaluate", str(tmp_path / "eight"), "--data", data, "--out", tmp_path)
    asked, said = told(*options), told(*options, "--all-symmetries")
    assert asked["all_symmetries"] and asked["metrics"] == said["metrics"]
    assert not told(*options, "--one-view")["all_symmetries"]
    description = invoke("describe", str(tmp_path / "eight"), "--out", tmp_path).stdout
    assert "by eight views" in description


def test_images_are_cropped_as_they_were_for_training(
    out: Path, bundle: Bundle, data: Path, tmp_path: Path
) -> None:
    wide = tmp_path / "wide"
    shutil.copytree(data, wide)
    for path in wide.rglob("*.png"):
        with Image.open(path) as image:
            image.resize((image.width * 2, image.height)).save(path)
    classes = ClassMap(CODES)
    images = read_lesion_images(wide, classes)
    net = network("float", TINY, len(CODES))
    net.set_weights(tiny_weights()[0])
    found = {}
    for name, crop in (("centre", centre_crop), ("whole", whole_frame)):
        cases = prepare_cases(images, classes, size=TINY.input_size, crop=crop)
        counts = ScoreCounts.from_logits(net.logits(cases.images), cases.labels)
        options = ("--backend", "float", "--crop", name)
        value = told("evaluate", f"{RUN}:2", "--out", out, "--data", wide, *options)
        assert value["metrics"] == summarize(counts, CODES).to_json()
        found[name] = value["metrics"]
    assert found["centre"] != found["whole"]
    # Where nothing is said, as the card says; a card of before that said so is of centred squares.
    for name in ("centre", "whole", ""):
        card = bundle.card.model_copy(update={"crop": name})
        save_bundle(Bundle(card, bundle.files), tmp_path / f"cropped-{name}")
        place = str(tmp_path / f"cropped-{name}")
        value = told("evaluate", place, "--data", wide, "--backend", "float")
        assert value["metrics"] == found[name or "centre"]


def test_probabilities_are_judged_by_what_other_lesions_taught(out: Path, data: Path) -> None:
    arguments = ("evaluate", f"{RUN}:2", "--out", out, "--data", data, "--backend", "float")
    value = told(*arguments)["probabilities"]
    classes = ClassMap(CODES)
    cases = prepare_cases(read_lesion_images(data, classes), classes, size=TINY.input_size)
    net = network("float", TINY, len(CODES))
    net.set_weights(tiny_weights()[0])
    logits = net.logits(cases.images)
    answers = logits.argmax(axis=1)
    assert value["as_is"] == reliability(probabilities(logits), cases.labels, answers).to_json()
    assert value["note"] == "" and len(value["temperatures"]) == 5
    assert value["with_prior"]["nll"] < value["temperature"]["nll"] < value["as_is"]["nll"]
    accuracy = (answers == cases.labels).mean()
    assert value["with_prior"]["accuracy"] == pytest.approx(accuracy)
    assert value["referral"]["accuracy"][0]["value"] == pytest.approx(accuracy)
    assert value["referral"]["shares"][-1] == 0.5 and "prior" in value["referred_by"]
    shown = invoke(*arguments).stdout
    for expected in ("adaptive ECE", "other lesions of the same images", "50%", "at 95 % spec"):
        assert expected in shown, expected


def test_validation_images_of_judged_lesions_are_left_out(
    out: Path, data: Path, tmp_path: Path
) -> None:
    arguments = ("evaluate", f"{RUN}:2", "--out", out, "--data", data, "--backend", "float")
    same = told(*arguments, "--validation", data)["probabilities"]
    images = len(read_lesion_images(data, ClassMap(CODES)))
    assert same["note"] == (
        f"too few validation lesions (0 of 20); {images} validation images are of lesions that "
        "are judged"
    )
    assert same["with_prior"] is None
    assert "softmax" in same["referred_by"]
    assert "no temperature was fitted" in invoke(*arguments, "--validation", data).stdout
    renamed = [
        replace(image, image_id=f"v{image.image_id}", lesion_id="v")
        for image in synthetic_lesion_images(40, 2, classes=ClassMap(CODES))
    ]
    write_class_folders(renamed, tmp_path / "validation")
    other = told(*arguments, "--validation", tmp_path / "validation")["probabilities"]
    assert len(other["temperatures"]) == 1 and other["fitted_on"] == "the validation images"
    assert other["with_prior"]["nll"] < other["as_is"]["nll"]
    assert other["as_is"] == told(*arguments)["probabilities"]["as_is"]


def test_agreement_counts_spikes_and_predictions(out: Path, data: Path) -> None:
    arguments = ("evaluate", f"{RUN}:2", "--out", out, "--data", data, "--agreement")
    value = told(*arguments)
    equal = value["agreement"]
    assert equal["images"] == value["images"]
    assert equal["spikes"] == value["images"] * TINY.spikes
    assert equal["spikes"] * 0.8 < equal["equal_spikes"] <= equal["spikes"]
    shown = invoke(*arguments).stdout
    assert f"{equal['equal_spikes']:,} of {equal['spikes']:,} equal" in shown
    for expected in ("software backend (akida", "balanced accuracy", "Confusion matrix"):
        assert expected in shown
    assert invoke(*arguments, "--backend", "float").exit_code == 2


def test_unknown_labels_are_named_or_left_out(out: Path, data: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "data"
    shutil.copytree(data, mixed)
    shutil.copytree(mixed / "nv", mixed / "vasc")
    arguments = ("evaluate", f"{RUN}:2", "--out", out, "--backend", "float", "--data", mixed)
    with pytest.raises(UnknownLabel, match=r"'vasc'.*--skip-unknown"):
        invoke(*arguments)
    value = told(*arguments, "--skip-unknown")
    assert value["skipped"] == {"vasc": len(list((mixed / "vasc").iterdir()))}
    without = told("evaluate", f"{RUN}:2", "--out", out, "--backend", "float", "--data", data)
    assert value["metrics"] == without["metrics"]
    assert "labelled 'vasc'" in invoke(*arguments, "--skip-unknown").stdout


def test_nothing_of_the_models_classes(out: Path, data: Path, tmp_path: Path) -> None:
    lines = ["image_path,diagnosis", *(f"{f.name},vasc" for f in (data / "nv").iterdir())]
    shutil.copytree(data / "nv", tmp_path / "data")
    (tmp_path / "data" / "cases.csv").write_text("\n".join(lines))
    with pytest.raises(DataUnfit, match="bkl"):
        invoke("evaluate", f"{RUN}:2", "--out", out, "--data", tmp_path / "data", "--skip-unknown")
    with pytest.raises(DataNotFound):
        invoke("evaluate", f"{RUN}:2", "--out", out, "--data", tmp_path / "nowhere")


def test_the_cache_is_used_only_where_named(out: Path, data: Path, tmp_path: Path) -> None:
    before = sorted(data.rglob("*"))
    arguments = ("evaluate", f"{RUN}:2", "--out", out, "--data", data, "--backend", "float")
    first = told(*arguments, "--cache", tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 1
    assert told(*arguments, "--cache", tmp_path / "cache") == first == told(*arguments)
    assert sorted(data.rglob("*")) == before


def test_a_damaged_bundle_is_never_evaluated(out: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(out / RUN / "versions" / "2", tmp_path / "2")
    content = bytearray((tmp_path / "2" / PROGRAM).read_bytes())
    content[100] ^= 1
    (tmp_path / "2" / PROGRAM).write_bytes(content)
    with pytest.raises(BundleDamaged, match=PROGRAM):
        invoke("evaluate", tmp_path / "2", "--data", data)
    with pytest.raises(BundleDamaged, match=PROGRAM):
        invoke("describe", tmp_path / "2")


def test_the_whole_command_prints_json_only(out: Path, data: Path) -> None:
    command = [sys.executable, "-m", "simulation.cli", "model", "evaluate", f"{RUN}:latest"]
    options = ["--out", str(out), "--data", str(data), "--json"]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["backend"].startswith("software backend (akida")
    missing = subprocess.run([*command[:-1], f"{RUN}:7", *options], capture_output=True, text=True)
    assert missing.returncode == 20 and missing.stdout == ""
    assert missing.stderr.count("\n") == 1 and "no version 7" in missing.stderr


def test_help_does_not_wait_for_tensorflow() -> None:
    code = "import sys, server.commands.model; print([m for m in sys.modules if m in {0!r}])"
    heavy = ("tensorflow", "akida", "sqlalchemy", "numpy", "rich")
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code.format(heavy)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]" and time.monotonic() - started < 5
