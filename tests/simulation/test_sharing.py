"""A class taught at one site reaches the chips of all within the round, in every round anew."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.bundle import PROGRAM, load_bundle
from common.files import sha256_of
from common.neurons import from_set
from common.seeds import derive_seed
from edge_client.service import EdgeClient, EdgeSettings
from edge_client.site import SiteFolder
from edge_client.versions import VersionFolder
from server.history.records import RunRecord
from server.run_folder import RunFolder
from simulation.sites import NewClass
from tests.support.tiny_run import record_of, run_tiny

ROUNDS = 5
TEACHER = "site-1"


@lru_cache(maxsize=2)
def run_with_new_class(keep: tuple[str, ...] = ()) -> tuple[Path, RunRecord]:
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="fedqana-sharing-"))
    data: dict[str, Any] = {
        "data": "synthetic:120",
        "sites": "iid:3",
        "new_class": NewClass(code="bcc", round=1, site=TEACHER).model_dump(),
        "keep_neurons": keep,
    }
    rounds = {"float_rounds": ROUNDS - 1, "qat_rounds": 1} if not keep else {}
    run = run_tiny(folder, data=data, **rounds)
    return run, record_of(run)


def shares(record: RunRecord) -> dict[tuple[int, str], dict[str, Any]]:
    return {(r.round, r.site): r.result for r in record.site_results if r.step == "share"}


def versions_of(run: Path, site: str) -> VersionFolder:
    return VersionFolder(SiteFolder(run / "sites" / site).state)


def switched(record: RunRecord) -> dict[tuple[int, str], bool]:
    """Whether each site put each round's version in service."""
    return {(u.round, u.site): u.switched for u in record.edge_updates}


def test_every_round_shares_the_neurons_of_its_own_program() -> None:
    _, record = run_with_new_class()
    assert record.run.state == "finished" and record.run.classes[-1] == "bcc"
    merges = [event for event in record.events if event.kind == "neurons-merged"]
    serving = switched(record)
    taught = [r for r in range(1, ROUNDS + 1) if serving[r, TEACHER]]
    assert [event.round for event in merges] == taught and len(taught) >= 3
    assert all("1 of bcc, 8 bytes" in event.message for event in merges)
    found = shares(record)
    assert len(found) == 3 * len(taught)
    for key, result in found.items():
        # A site that kept an older version has no use for neurons of the new one.
        assert result["adopted"] == int(serving[key] and key[1] != TEACHER), key
    assert sum(result["adopted"] for result in found.values()) >= 3


def test_the_neurons_in_the_layers_are_those_of_the_last_program() -> None:
    run, record = run_with_new_class()
    serving = switched(record)
    assert serving[ROUNDS, TEACHER]
    program = sha256_of(load_bundle(RunFolder(run).version(ROUNDS)).files[PROGRAM])
    teacher = EdgeClient(
        SiteFolder(run / "sites" / TEACHER).state,
        EdgeSettings(seed=derive_seed(0, "deploy", TEACHER)),
        read_only=True,
    )
    taught = teacher.neurons(record.run.classes[:-1], program)
    assert taught is not None and taught.codes == ("bcc",)
    expected = from_set(taught)["bcc"]
    others = [site for site in ("site-2", "site-3") if serving[ROUNDS, site]]
    assert others
    for site in others:
        versions = versions_of(run, site)
        foreign = versions.foreign(versions.require_current())
        assert set(foreign) == {"bcc"}
        np.testing.assert_array_equal(foreign["bcc"].weights, expected.weights)
        np.testing.assert_array_equal(foreign["bcc"].thresholds, expected.thresholds)
        assert "bcc" in versions.learned(versions.require_current()).classes


def test_old_classes_are_not_taken_over() -> None:
    """Each neuron's threshold was raised until it wins few of a site's own exemplars."""
    _, record = run_with_new_class()
    lost = [result["old_before"][0] - result["old_after"][0] for result in shares(record).values()]
    cases = sum(result["old_before"][1] for result in shares(record).values())
    assert sum(lost) <= 0.1 * cases


def test_a_site_may_keep_its_neurons() -> None:
    run, record = run_with_new_class((TEACHER,))
    assert record.run.state == "finished"
    assert not shares(record)
    assert not [event for event in record.events if event.kind == "neurons-merged"]
    versions = versions_of(run, "site-2")
    assert versions.foreign(versions.require_current()) == {}


@pytest.mark.parametrize("site", ["site-1", "site-2"])
def test_the_option_is_the_sites_own(site: str) -> None:
    run, _ = run_with_new_class((TEACHER,))
    assert SiteFolder(run / "sites" / site).read().shares_neurons == (site != TEACHER)
