"""The accuracy benchmark on small networks and made-up lesions: records, rows, tables."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from common.classes import HAM10000_CLASSES
from common.data.cases import Cases
from common.errors import ModelNotFound, SettingsError
from common.keras_setup import keras, tf
from common.qana.config import DEMO_CONFIG, WHOLE_CONFIG, QanaConfig
from common.qana.network import block_plans
from common.qana.networks import initial_weights, model_hash
from common.qana.weights import NamedWeights, named_weights
from edge_client.site import SiteFolder
from simulation.bench.accuracy.central_training import CentralTrainer, Epoch, Schedule, mixed
from simulation.bench.accuracy.graphs import build_graph
from simulation.bench.accuracy.judging import judge
from simulation.bench.accuracy.making import Options, _settings
from simulation.bench.accuracy.rows import ROW_NAMES, base_of, row_of
from simulation.bench.accuracy.seed_data import SeedCases, seed_cases
from simulation.bench.accuracy.table import _place, markdown, summarized
from simulation.cli import cli

pytestmark = pytest.mark.timeout(900)  # real runs, on a machine that may be busy

DATA = ["--data", "synthetic:80"]
SMALL = ["--network", "small", "--epochs", "1", "--seed", "0"]


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["bench", "accuracy", *arguments])


def make(out: Path, row: str, *options: str) -> tuple[dict[str, Any], str]:
    """The record of a row, and what was said on the way."""
    result = invoke("run", row, *DATA, *SMALL, "--out", str(out), "--json", *options)
    assert result.exit_code == 0, (result.output, result.exception)
    (record,) = json.loads(result.stdout)["records"]
    return record, result.stderr


def refused(*arguments: str) -> Exception:
    result = invoke(*arguments)
    assert isinstance(result.exception, Exception), result.output
    return result.exception


def weights_of(name: str) -> NamedWeights:
    """Of a row's network of the small widths, untrained."""
    row, options = row_of(name), Options("synthetic:80", Path(), network=DEMO_CONFIG)
    return named_weights(build_graph(row.graph, options.config(row), 7, 3))


def shapes(weights: NamedWeights) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in weights.items()}


@pytest.mark.parametrize(
    ("config", "expected", "total"),
    [(WHOLE_CONFIG, "b3ed2a5c", 23711.93), (QanaConfig(), "c5991610", 11410.20)],
)
def test_networks_stay_what_they_are(config: QanaConfig, expected: str, total: float) -> None:
    """The whole one is what it was before parts could be left out."""
    assert model_hash(config, 7)[:8] == expected
    first = initial_weights(config, 7, 3)
    assert sum(float(np.abs(w).sum()) for w in first.values()) == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("no-attention", ("_squeeze/", "_squeeze_bn/", "_spread/", "_spread_bn/")),
        ("no-se", ("excite_",)),
        ("no-residual", ("_skip",)),
        ("plain-convolutions", ("_primary/", "_cheap/", "_ghost_bn/")),
    ],
)
def test_an_ablated_network_lacks_its_part_and_nothing_else(
    name: str, parts: tuple[str, ...]
) -> None:
    usual, ablated = shapes(weights_of("all-elements")), shapes(weights_of(name))
    if name == "no-attention":  # excite_squeeze is not the attention's
        gone = {n for n in usual if any(p in n for p in parts) and not n.startswith("excite_")}
    else:
        gone = {name for name in usual if any(part in name for part in parts)}
    assert gone
    expected = {name: shape for name, shape in usual.items() if name not in gone}
    if name == "no-se":
        expected["spikes/kernel"] = (1, 1, DEMO_CONFIG.transform, DEMO_CONFIG.spikes)
    if name == "plain-convolutions":
        for plan in block_plans(DEMO_CONFIG):
            expected[f"{plan.name}_plain/kernel"] = (3, 3, plan.inputs, plan.width)
            for part in ("gamma", "beta", "moving_mean", "moving_variance"):
                expected[f"{plan.name}_plain_bn/{part}"] = (plan.width,)
    assert ablated == expected


def test_resnet18_has_the_weights_of_the_paper() -> None:
    model = build_graph("resnet18", QanaConfig(), 7, 0)
    # 11,689,512 of the ImageNet network, less its head of 1,000 classes, plus one of 7.
    trainable = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    assert trainable == 11_689_512 - 1_000 * 513 + 7 * 513
    # 7x7/2, pooling /2, then three stages of stride 2: 64 pixels become 2.
    assert model.get_layer("s3b1_relu").output.shape[1:] == (2, 2, 512)
    assert model(np.zeros((1, 64, 64, 3), np.uint8)).shape == (1, 7)


def test_a_convolution_of_a_small_map_is_the_usual_one() -> None:
    model = build_graph("resnet18", DEMO_CONFIG, 7, 0)
    layer = model.get_layer("s3b1_first")
    maps = np.random.default_rng(0).normal(size=(3, 2, 2, 32)).astype(np.float32)
    usual = tf.nn.conv2d(maps, layer.kernel, 1, "SAME")
    np.testing.assert_allclose(layer(maps), usual, rtol=1e-5, atol=1e-6)
    assert type(layer) is not type(model.get_layer("s2b1_first"))


def some_cases(n: int, seed: int = 0) -> Cases:
    rng = np.random.default_rng(seed)
    ids = tuple(f"{seed}-{i}" for i in range(n))
    images = rng.integers(0, 256, (n, 64, 64, 3), dtype=np.uint8)
    return Cases(images, np.arange(n) % 3, ids, ids)


def tiny(seed: int) -> keras.Model:
    """A convolution, batch norm and a head: any Keras model will do."""
    keras.utils.set_random_seed(seed)
    pixels = keras.Input((64, 64, 3), dtype="uint8")
    x = keras.layers.Conv2D(4, 8, 8, name="stem")(keras.layers.Rescaling(1 / 255)(pixels))
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(name="bn")(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(pixels, keras.layers.Dense(3, name="head")(x))


def test_a_stopped_training_goes_on_with_the_same_adam(tmp_path: Path) -> None:
    cases, schedule = some_cases(24), Schedule(epochs=3, batch=8, seed=5)
    whole = CentralTrainer(tiny(1))
    whole.train(cases, schedule)
    expected = named_weights(whole.model)
    assert int(whole._optimizer.iterations) == 9  # not started afresh in any epoch

    def stop(epoch: Epoch) -> None:
        if epoch.number == 2:
            raise KeyboardInterrupt

    partial, told = tmp_path / "partial.npz", list[int]()
    with pytest.raises(KeyboardInterrupt):
        CentralTrainer(tiny(1)).train(cases, schedule, stop, partial)
    kept = partial.read_bytes()
    again = CentralTrainer(tiny(1))
    again.train(cases, schedule, lambda epoch: told.append(epoch.number), partial)
    assert told == [2, 3]
    found = named_weights(again.model)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    # The state of another schedule, or from another start, is not taken up.
    told.clear()
    partial.write_bytes(kept)
    CentralTrainer(tiny(2)).train(cases, schedule, lambda epoch: told.append(epoch.number), partial)
    assert told == [1, 2, 3]
    told.clear()
    other = Schedule(epochs=2, batch=8, seed=6)
    again.train(cases, other, lambda epoch: told.append(epoch.number), partial)
    assert told == [1, 2]


def test_later_epochs_leave_the_statistics_of_batch_norm() -> None:
    model, seen = tiny(1), list[NamedWeights]()
    schedule = Schedule(epochs=4, batch=8, freeze_batch_norm=0.5)
    CentralTrainer(model).train(
        some_cases(16), schedule, lambda epoch: seen.append(named_weights(model))
    )
    means = [weights["bn/moving_mean"] for weights in seen]
    kernels = [weights["stem/kernel"] for weights in seen]
    assert [np.array_equal(means[i], means[i + 1]) for i in range(3)] == [False, True, True]
    assert not any(np.array_equal(kernels[i], kernels[i + 1]) for i in range(3))


def test_mixup_lays_images_over_each_other() -> None:
    images = np.stack([np.full((2, 2, 3), value, np.uint8) for value in (0, 100, 200)])
    labels = np.array([0, 1, 2])
    laid, others, share = mixed(images, labels, 0.2, np.random.default_rng(1))
    assert 0 < share < 1 and sorted(others) == [0, 1, 2]
    expected = np.rint(share * 100 * labels + (1 - share) * 100 * others)
    assert laid[:, 0, 0, 0].tolist() == expected.tolist()


def test_a_record_is_made_once(tmp_path: Path) -> None:
    missing = refused("run", "test-flips", *DATA, *SMALL, "--out", str(tmp_path))
    assert isinstance(missing, ModelNotFound) and "accuracy run pooled" in str(missing)

    first, said = make(tmp_path, "pooled")
    assert "pooled seed 0 epoch 1/1: loss" in said and "validation balanced accuracy" in said
    again, said = make(tmp_path, "pooled")
    assert again == first and said == ""
    other = refused("run", "pooled", *DATA, *SMALL, "--epochs", "2", "--out", str(tmp_path))
    assert isinstance(other, SettingsError) and "made with epochs 1, not 2" in str(other)
    bare = refused("run", "pooled", *DATA, *SMALL, "--elements", "none", "--out", str(tmp_path))
    assert isinstance(bare, SettingsError) and "made with elements" in str(bare)
    elsewhere = refused("run", "mixup", "--data", "synthetic:81", *SMALL, "--out", str(tmp_path))
    assert isinstance(elsewhere, SettingsError) and "synthetic:80" in str(elsewhere)
    assert not list(tmp_path.glob("*.partial.npz"))

    assert first["overlap"] == {"lesions": 0.0, "images": 0.0}
    assert first["backend"] == "TensorFlow float32 on CPU"
    assert first["command"] == (
        "fedqana bench accuracy run pooled --data synthetic:80 --seed 0 --epochs 1 --network small"
    )
    flips, said = make(tmp_path, "test-flips")
    assert said == "" and flips["test"] == first["test"]
    assert flips["result"]["confusion"] != [] and flips["settings"]["symmetries"] == 8
    # Rows can be chosen by validation lesions.
    held = first["result"]["validation"]
    assert set(held) == {"balanced_accuracy", "macro_f1", "macro_auc"}
    assert held != flips["result"]["validation"]
    assert "On validation lesions" in invoke("table", str(tmp_path)).output


def test_records_of_before_there_were_elements_to_choose_are_those_of_the_whole_network() -> None:
    def settings(name: str, network: QanaConfig) -> dict[str, Any]:
        return _settings(row_of(name), Options("synthetic:80", Path(), network=network))

    assert "elements" not in settings("pooled", WHOLE_CONFIG)
    assert settings("pooled", QanaConfig())["elements"] == []
    for name in ("no-attention", "no-se", "no-residual"):
        assert settings(name, QanaConfig())["graph"] == name
        assert "elements" not in settings(name, QanaConfig())
    assert settings("resnet18", QanaConfig()) == settings("resnet18", WHOLE_CONFIG)


def test_rows_stand_in_the_order_of_their_names() -> None:
    names = ["mixup", "alone-flips-x", "alone-y", "pooled", "alone-x", "zeta"]
    ordered = ["pooled", "alone-x", "alone-y", "alone-flips-x", "mixup", "zeta"]
    assert sorted(names, key=_place) == ordered


def test_eight_views_are_of_the_rows_own_network(tmp_path: Path) -> None:
    assert base_of(row_of("resnet18-flips")) == row_of("resnet18")
    flips = row_of("alone-flips", "studio")
    assert flips.name == "alone-flips-studio" and base_of(flips) == row_of("alone", "studio")
    with pytest.raises(SettingsError, match="alone-flips: say which site"):
        row_of("alone-flips")
    missing = refused(
        "run", "alone-flips", "--site", "studio", *DATA, *SMALL, "--out", str(tmp_path)
    )
    assert isinstance(missing, ModelNotFound)
    assert "accuracy run alone --site studio --data synthetic:80" in str(missing)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the sites are made once."""
    return tmp_path_factory.mktemp("sites")


def cases_of(place: Path, name: str, site: str = "") -> SeedCases:
    return seed_cases(row_of(name, site), "synthetic:80", 0, HAM10000_CLASSES, 64, place)


def test_the_leaky_protocol_tests_on_what_it_trained_on(place: Path) -> None:
    honest, leaky = cases_of(place, "pooled"), cases_of(place, "leaky")
    assert honest.overlap() == {"lesions": 0.0, "images": 0.0}
    # All three other views of a test image are in the test part too once in 125 times.
    assert leaky.overlap()["images"] > 0.95 and leaky.overlap()["lesions"] > 0.95
    everything = {
        case_id
        for name in ("archive", "handheld", "polarized", "studio")
        for part in ("train", "validation", "test")
        for case_id in getattr(SiteFolder(place / "sites-0" / name).read(), part).case_ids
    }
    assert {*leaky.train.case_ids, *leaky.test.case_ids} == everything
    total = len(leaky.train) + len(leaky.test)
    assert total == 4 * len(everything) and len(leaky.train) == round(0.8 * total)
    assert len(leaky.validation) == 0 and len(leaky.test_sites) == len(leaky.test)


def test_smote_adds_cases_to_training_only(place: Path) -> None:
    usual, filled = cases_of(place, "pooled"), cases_of(place, "smote")
    assert len(filled.train) > len(filled.real) == len(usual.train)
    assert filled.test_hash() == usual.test_hash() and filled.overlap()["lesions"] == 0


def test_one_site_alone_is_judged_on_all(place: Path) -> None:
    usual, alone = cases_of(place, "pooled"), cases_of(place, "alone", "studio")
    assert set(alone.train.case_ids) < set(usual.train.case_ids)
    assert alone.test_hash() == usual.test_hash() and len(set(alone.test_sites)) == 4
    with pytest.raises(SettingsError, match="no such site; there are archive"):
        cases_of(place, "alone", "x")
    with pytest.raises(SettingsError, match="with --site"):
        row_of("alone")
    with pytest.raises(SettingsError, match="leave it out"):
        row_of("pooled", "studio")


def test_bfloat16_is_for_resnet18(tmp_path: Path) -> None:
    error = refused("run", "pooled", *DATA, *SMALL, "--bfloat16", "--out", str(tmp_path))
    assert isinstance(error, SettingsError) and "resnet18" in str(error)


def test_the_prior_is_put_back() -> None:
    """Two of four nevi are taken for melanomas until the frequencies are known."""
    train = Cases(
        np.zeros((10, 1, 1, 3), np.uint8), np.array([0] * 9 + [1]), ("",) * 10, ("",) * 10
    )
    ids = tuple("abcdef")
    test = Cases(np.zeros((6, 1, 1, 3), np.uint8), np.array([0, 0, 0, 0, 1, 1]), ids, ids)
    scores = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0, 3], [0, 3]], np.float32)
    cases = SeedCases(("nv", "mel"), train, train, test, test, ("x",) * 5 + ("y",))
    found = judge(scores, None, cases, 1.0)
    assert found["accuracy"]["value"] == pytest.approx(4 / 6)
    assert found["balanced_accuracy"]["value"] == pytest.approx((2 / 4 + 1) / 2)
    assert found["confusion"] == [[2, 2], [0, 2]]
    # The log odds of the smoothed frequencies are log(10 / 2) = 1.6: above 1, below 3.
    assert found["with_prior"]["accuracy"]["value"] == 1.0
    assert judge(scores, None, cases, 0.0)["with_prior"]["accuracy"] == found["accuracy"]
    assert found["sites"]["x"]["n"] == 5 and found["sites"]["y"]["value"] is None


def record_of(row: str, seed: int, value: float, hits: int, **other: Any) -> dict[str, Any]:
    estimate = {"value": value}
    result = {
        "balanced_accuracy": estimate,
        "macro_f1": estimate,
        "accuracy": estimate,
        "macro_auc": estimate,
        "melanoma_sensitivity": estimate,
        "melanoma_sensitivity_95": None,
        "recall": {"mel": estimate, "nv": estimate},
        "confusion": [[hits, 10 - hits], [1, 3]],
        "sites": {"x": {"value": value}, "y": {"value": None}},
        "ece": {"softmax": 0.25, "calibrated": value},
        "with_prior": {"accuracy": estimate, "macro_f1": estimate},
    }
    about = {"settings": {"epochs": 1}, "backend": "b", "test": {"sha256": str(seed)}}
    return {"row": row, "seed": seed, "result": result, **about, **other}


def test_the_table_by_hand() -> None:
    records = [
        record_of("zeta", 0, 0.4, 4),
        record_of("pooled", 1, 0.9, 9),
        record_of("pooled", 0, 0.5, 5),
        record_of("pooled", 2, 0.7, 6),
    ]
    pooled, zeta = summarized(records)
    assert (pooled["row"], zeta["row"]) == ("pooled", "zeta")
    found = pooled["metrics"]["balanced accuracy"]
    # Mean of 0.9, 0.5 and 0.7; deviations 0.2, -0.2 and 0 over two degrees of freedom.
    assert found == {"mean": pytest.approx(0.7), "sd": pytest.approx(0.2), "n": 3}
    assert pooled["recall"]["mel"] == {"hits": 20, "cases": 30}
    assert pooled["recall"]["nv"] == {"hits": 9, "cases": 12}
    assert pooled["metrics"]["mel. sens. at 95 % spec."] == {"mean": None, "sd": None, "n": 0}
    text = markdown([pooled, zeta])
    assert "| pooled | 3 |  | 0.700 ± 0.200 |" in text
    assert "| zeta | 1 of 3 |  | 0.400 |" in text
    assert "| pooled | 0.667 (20 of 30) | 0.750 (9 of 12) |" in text
    assert "| pooled | 0.700 ± 0.200 | – |" in text  # by site

    longer = record_of("pooled", 3, 0.5, 5, settings={"epochs": 2})
    with pytest.raises(SettingsError, match="different settings"):
        summarized([*records, longer])
    elsewhere = record_of("mixup", 0, 0.5, 5, test={"sha256": "other"})
    with pytest.raises(SettingsError, match="different test images"):
        summarized([*records, elsewhere])
    leaky = record_of("leaky", 0, 0.9, 9, test={"sha256": "other"}, overlap={"lesions": 1.0})
    assert summarized([*records, leaky])[1]["overlap"]["lesions"] == 1.0


def test_a_folder_without_records(tmp_path: Path) -> None:
    assert "has no record" in str(refused("table", str(tmp_path)))
    (tmp_path / "pooled-seed-0.json").write_text("{}")
    assert "is no record" in str(refused("table", str(tmp_path)))


def test_every_row_names_what_it_changes() -> None:
    assert len(set(ROW_NAMES)) == len(ROW_NAMES)
    usual = row_of("pooled")
    for name in ROW_NAMES:
        row = row_of(name, "x" if name.startswith("alone") else "")
        changed = [f for f in vars(usual) if f != "name" and getattr(row, f) != getattr(usual, f)]
        two = ("smote", "resnet18-flips", "alone-flips")
        assert len(changed) == (0 if name == "pooled" else 2 if name in two else 1)


@pytest.mark.parametrize("command", [(), ("run",), ("table",)])
def test_help(command: tuple[str, ...]) -> None:
    assert invoke(*command, "--help").exit_code == 0
