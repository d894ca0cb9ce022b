"""The bench's measurements on a small network and made-up lesions: that they run and add up."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from common.akida_runtime import LearningProgram, Program
from common.bundle import load_bundle
from common.errors import ModelNotFound, SettingsError
from common.neurons import connections_of
from common.qana.config import ELEMENTS
from edge_client.prototypes import discriminative_prototypes
from simulation.bench.networks import SHAPES, BenchSettings, Seen, known_codes
from simulation.bench.on_chip import best_recall, drawn, herded, poison, recalls, teach
from simulation.cli import cli
from simulation.commands.bench import SHAPE_NAMES
from tests.akida_runtime.tiny import tiny_program
from tests.edge_client.test_prototypes import some_spikes

DATA = ["--data", "synthetic:60"]
SHORT = ["--float-epochs", "1", "--qat-epochs", "1"]


def seen(seed: int, n_classes: int) -> Seen:
    spikes, labels = some_spikes(seed, n_classes, per_class=40)
    scores = np.zeros((len(labels), n_classes - 1), np.float32)
    return Seen(spikes, scores, scores, scores, spikes, labels)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(cli, ["bench", *arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def test_a_network_is_trained_once_and_measured(tmp_path: Path) -> None:
    place = ["--out", str(tmp_path), "--seed", "0", "--shape", "small"]
    assert "fits AKD1000 and AKD1500" in run("train", *DATA, *place, *SHORT)
    before = load_bundle(tmp_path / "seed-0-small").card
    assert "epoch" not in run("train", *DATA, *place, *SHORT)
    assert load_bundle(tmp_path / "seed-0-small").card == before
    found = json.loads(run("conversion", *DATA, *place, "--json"))
    for row in found["conversion"]:
        assert row["equal_spikes"] == row["spikes"] > 0
        assert row["equal_predictions"] == row["images"] > 0
        assert row["akida"] == row["quantized"]
    assert found["events"][0]["stem"] > 0 and "akida" in found["backend"]
    table = run("heads", *DATA, *place, "--draws", "1")
    assert "| both heads" in table and "Akida's rule" in table
    assert "| prototypes | 0 |" in run("wear", *DATA, *place)
    shapes = json.loads(run("shapes", *DATA, *place, "--json"))["shapes"]
    assert shapes[0]["nps"]["AKD1000"] > 0 and shapes[0]["macs"] > 0
    assert "| small |" in run("shapes", *DATA, *place)

    longer = CliRunner().invoke(cli, ["bench", "train", *DATA, *place, "--float-epochs", "2"])
    assert isinstance(longer.exception, SettingsError)
    assert "with float_epochs 1; give another --out" in str(longer.exception)
    others = CliRunner().invoke(cli, ["bench", "wear", "--data", "synthetic:59", *place])
    assert isinstance(others.exception, SettingsError) and "other images" in str(others.exception)

    penalty = ["--event-penalty", "30"]
    assert "qat" in (trained := run("train", *DATA, *place, *SHORT, *penalty))
    assert "float epoch" not in trained  # the float half is the same, and there already
    rows = json.loads(run("sparsity", *DATA, *place, *penalty, "--event-penalty", "0", "--json"))
    penalized, plain = rows["sparsity"]
    assert penalized["test"]["float"] == plain["test"]["float"]
    assert penalized["events"]["mean"] < plain["events"]["mean"]
    assert "float epoch" not in run("train", *DATA, *place, *SHORT, "--distillation", "0")
    labels = json.loads(run("conversion", *DATA, *place, "--distillation", "0", "--json"))
    assert labels["conversion"][0]["float"] == found["conversion"][0]["float"]
    assert labels["events"] != found["events"]
    figure = tmp_path / "events.svg"
    assert "| 30 |" in run("sparsity", *DATA, *place, *penalty, "--figure", str(figure))
    assert "</svg>" in figure.read_text()


def test_the_command_offers_the_shapes_that_there_are() -> None:
    assert tuple(SHAPES) == SHAPE_NAMES
    assert [name for name, config in SHAPES.items() if config.elements != ELEMENTS] == ["bare"]
    # Networks that were made before there was a choice are found again.
    assert BenchSettings(0, shape="whole").name == "seed-0"
    assert BenchSettings(0, shape="whole").floating["shape"] == "default"
    assert BenchSettings(0).name == "seed-0-bare"


def test_a_network_that_was_not_trained(tmp_path: Path) -> None:
    place = ["--out", str(tmp_path), "--seed", "3"]
    result = CliRunner().invoke(cli, ["bench", "heads", *DATA, *place])
    assert isinstance(result.exception, ModelNotFound)
    assert "fedqana bench train" in str(result.exception)


def test_the_layer_answers_as_the_bench_computes() -> None:
    """Potentials are computed from spikes; Akida's backend gives the same for the same neurons."""
    program = tiny_program()
    spikes, labels = some_spikes(1, 3)
    neurons = discriminative_prototypes(spikes, labels, 3, connections_of(64))
    learner = LearningProgram.create(program, 3, 1, connections_of(64), 0.1, seed=0)
    learner.program_neurons(neurons.weights, neurons.thresholds)
    np.testing.assert_array_equal(learner.classify_spikes(spikes), neurons.answers(spikes))
    again = LearningProgram.from_bytes(learner.to_bytes(), seed=0)
    np.testing.assert_array_equal(again.classify_spikes(spikes), neurons.answers(spikes))
    assert isinstance(Program.from_bytes(learner.to_bytes()), Program)


def test_teaching_and_sharing_a_class() -> None:
    train, judged = seen(4, 5), seen(4, 5)
    results = [teach(train, judged, 4, 10, 20, 0, draw) for draw in range(4)]
    assert np.mean([r.recall for r in results]) > 0.7
    assert np.mean([r.recall_elsewhere for r in results]) > 0.4
    assert np.mean([r.change for r in results]) > -0.15
    # An averaged layer answers the new class to cases of all others.
    averaged = np.mean([r.change_averaged for r in results])
    assert averaged < np.mean([r.change_elsewhere for r in results]) - 0.05


def test_limits_save_most_of_what_hostile_neurons_take() -> None:
    found = poison(seen(5, 5), seen(5, 5), 4, 20, 0, 0)
    assert found.unlimited < -0.5 and found.limited > -0.1


def test_the_best_recall_for_a_point_of_the_others() -> None:
    """Class 1 is new; of 100 cases each of classes 0 and 2 any two may be lost, not three."""
    labels = np.array([0] * 100 + [1] * 4 + [2] * 100)
    scores = np.zeros((204, 3), np.float32)
    scores[np.arange(204), labels] = 1.0
    assert best_recall(scores, labels, 1) == 1.0
    scores[:3, 1] = [1.5, 1.375, 1.25]  # their leads over class 0: 0.5, 0.375, 0.25
    scores[100:104] = [[0, 0.75, 0], [0, 0.375, 0], [0, 0.25, 0], [0, 0.125, 0]]
    assert best_recall(scores, labels, 1) == 0.5  # the third case may not be won, nor its like
    scores[:3, 2] = 9  # cases that are lost anyway cost nothing
    assert best_recall(scores, labels, 1) == 1.0


def test_a_class_is_taught_to_trained_networks(tmp_path: Path) -> None:
    place = ["--out", str(tmp_path), "--seed", "0", "--shape", "small"]
    run("train", *DATA, *place, *SHORT)
    run("train", *DATA, *place, *SHORT, "--hold-out", "bcc")
    table = run("new-class", *DATA, *place, "--hold-out", "bcc", "--draws", "2")
    assert "recall within a point" in table and "| bcc | 10 |" in table and "| limited |" in table
    unknown = CliRunner().invoke(cli, ["bench", "new-class", *DATA, *place, "--hold-out", "xx"])
    assert isinstance(unknown.exception, SettingsError) and "no such class" in str(
        unknown.exception
    )


def test_a_float_half_of_other_images_is_not_taken(tmp_path: Path) -> None:
    place = ["--out", str(tmp_path), "--seed", "0", "--shape", "small"]
    run("train", *DATA, *place, *SHORT)
    other = run("train", "--data", "synthetic:70", *place, *SHORT, "--distillation", "0")
    assert "float epoch 1/1" in other
    (tmp_path / "seed-0-small.json").write_text("{")
    result = CliRunner().invoke(cli, ["bench", "train", *DATA, *place, *SHORT])
    assert isinstance(result.exception, SettingsError)
    assert "cannot be read; remove" in str(result.exception)


def test_drawn_and_herded_take_so_many_of_each_class() -> None:
    spikes, labels = some_spikes(2, 4, per_class=30)
    rng = np.random.default_rng(0)
    for chosen in (drawn(labels, 7, rng), herded(spikes, labels, 7, rng)):
        assert np.bincount(labels[chosen]).tolist() == [7] * 4
        assert len(set(chosen.tolist())) == 28
    assert recalls(labels, labels) == dict.fromkeys(range(4), 1.0)


def test_a_class_that_is_held_out_is_none() -> None:
    from common.classes import HAM10000_CLASSES

    assert "df" not in known_codes(HAM10000_CLASSES, "df")
    result = CliRunner().invoke(cli, ["bench", "train", *DATA, "--hold-out", "xx"])
    assert "no such class" in str(result.exception)


@pytest.mark.parametrize(
    "command", ["conversion", "heads", "new-class", "wear", "train", "shapes", "sparsity"]
)
def test_help(command: str) -> None:
    assert "--seed" in run(command, "--help")
