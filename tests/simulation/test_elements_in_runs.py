"""A run of a network that lacks QANA's elements, by the options that a user gives."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from common.bundle import load_bundle
from common.qana.config import DEMO_CONFIG, WHOLE_CONFIG, QanaConfig
from server.commands.network_options import network_config
from server.run_folder import RunFolder
from simulation.cli import cli
from tests.support.tiny_run import TINY, record_of, run_tiny

pytestmark = pytest.mark.timeout(600)  # real runs, on a machine that may be busy

RUN = (
    *("simulate", "--data", "synthetic:80", "--sites", "iid:2", "--rounds", "1"),
    *("--qat-rounds", "1", "--network", "small", "--fine-tuning-epochs", "0", "--run", "bare"),
)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def test_a_network_without_elements_becomes_a_program_that_computes_the_same(
    tmp_path: Path,
) -> None:
    options = ("--elements", "none", "--initial", "random", "--out", str(tmp_path))
    made = invoke(*RUN, *options)
    assert made.exit_code == 0, (made.output, made.exception)
    described = invoke("model", "describe", "bare:2", "--out", str(tmp_path), "--json")
    assert described.exit_code == 0, (described.output, described.exception)
    told = json.loads(described.stdout)
    assert told["config"] == DEMO_CONFIG.model_dump(mode="json") | {"elements": []}
    layers = [layer for layer in told["mean_spikes"] if "gate" in layer or "excite" in layer]
    assert not layers and told["mean_spikes"]
    assert told["fit"]["AKD1000"]["fits"]


def test_the_bare_network_is_distilled_compressed_and_fine_tuned_as_any(tmp_path: Path) -> None:
    bare = TINY.model_copy(update={"elements": ()})
    folder = run_tiny(
        tmp_path, config=bare, fine_tuning_epochs=1, compression="quantization", distillation=1.0
    )
    record = record_of(folder)
    assert record.run.state == "finished"
    assert load_bundle(RunFolder(folder).version(2)).card.config == bare
    deployed = [update for update in record.edge_updates if update.round == 2]
    assert len(deployed) == 4 and all(update.switched for update in deployed)


def test_what_comes_with_fedqana_is_no_start_for_it(tmp_path: Path) -> None:
    refused = invoke(*RUN, "--elements", "attention", "--out", str(tmp_path))
    assert "no pretrained weights come with a network of this shape" in str(refused.exception)
    assert not (tmp_path / "bare").exists()


def test_an_element_that_there_is_not_is_named(tmp_path: Path) -> None:
    refused = invoke(*RUN, "--elements", "attention,ghost", "--out", str(tmp_path))
    assert "'ghost' is no element; give some of attention, residual" in str(refused.exception)


def test_elements_by_default_are_those_of_the_network() -> None:
    assert network_config("default", None) == QanaConfig() and not QanaConfig().elements
    assert network_config("default", "all") == WHOLE_CONFIG
    assert network_config("small", None) == network_config("small", "all") == DEMO_CONFIG
    assert network_config("small", "none").elements == ()
    assert network_config("default", "excitation, attention").elements == (
        "attention",
        "excitation",
    )
