"""Runs in which not every round makes a model version."""

from pathlib import Path

import pytest
from flwr.app import Context, Message

from common.bundle import load_bundle
from edge_client.flower import app as deployed
from edge_client.site import SiteFolder
from server.plan import RunPlan
from server.step_times import steps_of
from simulation.sites import NewClass
from tests.support.hostile import run_with
from tests.support.tiny_run import (
    create_tiny,
    differences,
    fingerprint,
    position_of,
    record_of,
    run_tiny,
    tiny_plan,
)

pytestmark = pytest.mark.timeout(900)  # real runs, on a machine that may be busy

SETTINGS = {"float_rounds": 4, "qat_rounds": 1, "deploy_every": 3}
DATA = {"new_class": NewClass(code="bcc", round=1, site="site-1")}


def deploying(plan: RunPlan) -> list[int]:
    return [n for n in range(1, plan.rounds + 1) if plan.deploys(n)]


def test_rounds_that_deploy() -> None:
    assert deploying(tiny_plan(float_rounds=2, qat_rounds=2)) == [1, 2, 3, 4]
    plan = tiny_plan(float_rounds=8, qat_rounds=5, deploy_every=3)
    assert deploying(plan) == [3, 6, 8, 9, 12, 13]  # and the last one of either phase
    assert [plan.version_before(n) for n in (1, 3, 4, 8, 9, 10)] == [0, 0, 3, 6, 8, 9]
    assert deploying(tiny_plan(float_rounds=2, qat_rounds=0, deploy_every=9)) == [2]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a class that comes in its first round, which is not deployed."""
    return run_tiny(tmp_path_factory.mktemp("whole"), DATA, **SETTINGS)


def test_rounds_between_train_and_evaluate_only(whole: Path) -> None:
    record = record_of(whole)
    assert record.run.state == "finished"
    for r in record.rounds:
        deployed = {"bundle", "deploy", "share"} if r.number >= 3 else set()
        assert steps_of(r.seconds).keys() == {"train", "evaluate", "checkpoint"} | deployed
        assert r.finished_at is not None
    cards = {v.version: load_bundle(Path(v.folder)).card for v in record.versions}
    assert {version: card.parent for version, card in cards.items()} == {3: 0, 4: 3, 5: 4}
    evaluated = {r.round for r in record.site_results if r.step == "evaluate" and r.accepted}
    assert evaluated == {1, 2, 3, 4, 5}


def test_what_arrives_waits_for_the_next_version(whole: Path) -> None:
    record = record_of(whole)
    for site in ("site-1", "site-2", "site-3", "site-4"):
        data = SiteFolder(whole / "sites" / site).read()
        due = {n: int((data.arrival_rounds <= n).sum()) for n in (3, 4, 5)}
        learned = {u.round: u.cases_learned for u in record.edge_updates if u.site == site}
        assert learned == {3: due[3], 4: due[4] - due[3], 5: due[5] - due[4]}
    registered = [(e.round, e.site) for e in record.events if e.kind == "class-registered"]
    assert registered == [(3, "site-1")]  # where it was from round 1 on


def test_a_run_interrupted_twice_ends_like_one_that_was_not(whole: Path, tmp_path: Path) -> None:
    folder = create_tiny(tmp_path, DATA, **SETTINGS)
    for kind, number in (("evaluate", 2), ("query.deploy", 3)):

        def interrupted(
            message: Message, context: Context, kind: str = kind, number: int = number
        ) -> Message:
            ask = str(message.content.config_records["instruction"].get("ask"))
            if message.metadata.message_type == kind and f'"round":{number},' in ask:
                raise KeyboardInterrupt
            return deployed(message, context)

        with pytest.raises(KeyboardInterrupt):
            run_with(folder, interrupted)
        assert record_of(folder).run.state == "stopped"
        assert position_of(folder) == f"{number}/{kind.removeprefix('query.')}"
    run_with(folder)
    assert differences(fingerprint(whole), fingerprint(folder)) == []
