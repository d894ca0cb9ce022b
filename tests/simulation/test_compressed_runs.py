"""Runs whose sites send a compressed change: close to plain ones, and the same when resumed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message

from common.bundle import load_bundle
from common.flower_records import unpack_instruction
from common.messages import Answer, TrainAsk
from common.qana.networks import initial_weights
from common.qana.weights import NamedWeights, is_statistic
from edge_client.flower import app as deployed
from edge_client.unsent_change import FOLDER
from server.run_folder import RunFolder
from tests.support.hostile import HostileSites, run_with
from tests.support.tiny_run import (
    TINY,
    create_tiny,
    differences,
    fingerprint,
    record_of,
    run_tiny,
    state_of,
)

SHORT: dict[str, Any] = {"float_rounds": 2, "qat_rounds": 0}
SETTINGS: dict[str, Any] = {**SHORT, "compression": "quantization"}


class _Interrupted:
    """The deployed ClientApp; once, a site's work is done when the whole run is interrupted."""

    def __init__(self, site: str, round_number: int) -> None:
        self._where: tuple[str, int] | None = (site, round_number)

    def __call__(self, message: Message, context: Context) -> Message:
        reply = deployed(message, context)
        ask = unpack_instruction(message).ask
        site = Path(str(context.node_config["site-folder"])).name
        if isinstance(ask, TrainAsk) and (site, ask.round) == self._where:
            self._where = None
            raise KeyboardInterrupt
        return reply


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_tiny(tmp_path_factory.mktemp("plain"), **SHORT)


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_tiny(tmp_path_factory.mktemp("compressed"), **SETTINGS)


def weights_after(folder: Path, version: int) -> NamedWeights:
    return load_bundle(RunFolder(folder).version(version)).weights("float.npz")


def uploaded(folder: Path) -> list[int]:
    return [r.bytes_up for r in record_of(folder).site_results if r.step == "train"]


def kept(folder: Path) -> dict[str, list[str]]:
    return {
        path.name: sorted(file.name for file in (path / "state" / FOLDER).glob("*"))
        for path in sorted((folder / "sites").glob("site-*"))
    }


def test_it_comes_to_where_a_plain_run_does(plain: Path, compressed: Path) -> None:
    record = record_of(compressed)
    assert record.run.state == "finished"
    assert [r.sites_aggregated for r in record.rounds] == [4, 4]
    assert not [r for r in record.site_results if r.reason]
    start = initial_weights(TINY, len(record.run.classes), seed=0)
    # A seventh of each site's change is left out; so few steps cancel to less than half over sites.
    wanted, found = (weights_after(folder, 1) for folder in (plain, compressed))
    assert 0 < _distance(found, wanted) < 0.25 * _distance(wanted, start)
    losses = [
        [r.result["loss"] for r in record_of(folder).site_results if r.step == "train"]
        for folder in (plain, compressed)
    ]
    assert losses[0][:4] == losses[1][:4]
    assert np.mean(losses[1][4:]) == pytest.approx(np.mean(losses[0][4:]), rel=0.1)


def _distance(first: NamedWeights, second: NamedWeights) -> float:
    trained = [name for name in first if not is_statistic(name)]
    return float(np.sqrt(sum(np.square(first[n] - second[n]).sum() for n in trained)))


def test_it_sends_a_fraction(plain: Path, compressed: Path) -> None:
    # A sixth: beside so few weights, batch norm's statistics and the message's form count more.
    assert max(uploaded(compressed)) < min(uploaded(plain)) / 6


def test_the_sites_keep_what_the_last_two_rounds_left_out(compressed: Path) -> None:
    assert kept(compressed) == {f"site-{n}": ["1", "2"] for n in (1, 2, 3, 4)}
    state = state_of(compressed)
    assert state is not None and state.counted == {f"site-{n}": 2 for n in (1, 2, 3, 4)}


def test_interrupted_when_a_site_had_answered_it_ends_alike(
    compressed: Path, tmp_path: Path
) -> None:
    folder = create_tiny(tmp_path, **SETTINGS)
    client = _Interrupted("site-3", 2)
    with pytest.raises(KeyboardInterrupt):
        run_with(folder, client)
    assert record_of(folder).run.state == "stopped"
    assert kept(folder)["site-3"] == ["1", "2"] and kept(folder)["site-4"] == ["1"]
    run_with(folder, client)
    assert differences(fingerprint(compressed), fingerprint(folder)) == []


def test_a_reply_that_is_lost_is_sent_by_no_later_round(tmp_path: Path) -> None:
    asked: list[tuple[str, int, int]] = []

    def lost(answer: Answer, before: int) -> Answer:
        return Answer(error="internal-error") if before == 1 else answer

    sites = HostileSites({("train", "site-2"): lost})

    def client(message: Message, context: Context) -> Message:
        ask = unpack_instruction(message).ask
        if isinstance(ask, TrainAsk):
            site = Path(str(context.node_config["site-folder"])).name
            asked.append((site, ask.round, ask.counted))
        return sites(message, context)

    folder = create_tiny(tmp_path, **{**SETTINGS, "float_rounds": 3})
    run_with(folder, client)
    assert [r.sites_aggregated for r in record_of(folder).rounds] == [4, 3, 4]
    assert [counted for site, _, counted in asked if site == "site-2"] == [0, 1, 1]
    assert [counted for site, _, counted in asked if site == "site-1"] == [0, 1, 2]
    assert kept(folder)["site-2"] == ["1", "3"] and kept(folder)["site-1"] == ["2", "3"]


def test_top_k_runs_through_the_engine(tmp_path: Path) -> None:
    folder = run_tiny(tmp_path, compression="top-k")
    record = record_of(folder)
    assert record.run.state == "finished"
    assert [r.sites_aggregated for r in record.rounds] == [4, 4]
