"""Whole runs of the tests' one shape: strategies, seeds, new classes."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from common.bundle import load_bundle
from common.errors import RunMismatch
from common.messages import Instruction, TrainAsk
from common.qana.weights import trained_part
from edge_client.site import SiteFolder
from edge_client.site_tasks import train
from server.run_folder import RunFolder
from simulation.cli import cli
from simulation.sites import NewClass
from tests.kill_trials import finish
from tests.support.tiny_run import (
    TINY,
    create_tiny,
    differences,
    fingerprint,
    record_of,
    run_tiny,
    state_of,
)


@pytest.mark.parametrize(
    "strategy", ["fedprox", "fedadam", "fedyogi", "fedmedian", "fedtrimmedavg", "krum"]
)
def test_every_strategy_runs_through_the_engine(strategy: str, tmp_path: Path) -> None:
    folder = run_tiny(tmp_path, strategy=strategy, qat_rounds=0)
    record, state = record_of(folder), state_of(folder)
    assert record.run.state == "finished" and state is not None
    assert record.rounds[0].sites_aggregated == 4
    assert bool(state.strategy) == (strategy in ("fedadam", "fedyogi"))


def test_the_same_seed_gives_the_same_run(finished: Path, tmp_path: Path) -> None:
    again = run_tiny(tmp_path, float_rounds=2)
    assert differences(fingerprint(finished), fingerprint(again)) == []


def test_another_seed_gives_another_run(finished: Path, tmp_path: Path) -> None:
    other = run_tiny(tmp_path, {"seed": 0}, seed=1, float_rounds=2)
    first, second = (load_bundle(RunFolder(f).version(3)).card.sha256 for f in (finished, other))
    assert all(first[name] != second[name] for name in first)


def test_a_finished_run_stays_as_it_is(finished: Path) -> None:
    before = fingerprint(finished)
    finish(finished)
    assert differences(before, fingerprint(finished)) == []


def test_resume_with_other_options_is_refused(finished: Path) -> None:
    arguments = ["simulate", "--out", str(finished.parent), "--resume", finished.name]
    result = CliRunner().invoke(cli, [*arguments, "--seed", "3", "--rounds", "9"])
    assert isinstance(result.exception, RunMismatch) and result.exception.exit_status == 33
    assert "--rounds, --seed" in str(result.exception)


def test_a_new_class_is_known_at_once_and_grows_the_head(tmp_path: Path) -> None:
    new = NewClass(code="vasc", round=1, site="site-1")
    folder = run_tiny(tmp_path, {"new_class": new}, float_rounds=2, qat_rounds=0)
    record, state = record_of(folder), state_of(folder)
    assert state is not None
    before = record.run.plan["classes"]
    assert "vasc" not in before
    assert list(state.classes) == [*before, "vasc"] == list(record.run.classes)
    registered = [e for e in record.events if e.kind == "class-registered"]
    assert [(e.round, e.site) for e in registered] == [(1, "site-1")]
    first, second = (load_bundle(RunFolder(folder).version(n)) for n in (1, 2))
    assert len(first.card.classes) == 6 and second.card.classes == state.classes
    assert second.weights("float.npz")["head/bias"].shape == (7,)
    by_site = {u.site: u.result for u in record.edge_updates if u.round == 1}
    assert by_site["site-1"]["new_classes"] == ["vasc"]
    assert all(by_site[f"site-{n}"]["new_classes"] == [] for n in (2, 3, 4))
    # From the next round on every site has the class, and its cases still count as new.
    held_back = {
        f"site-{n}": int((data.validation.labels == data.classes.index("vasc")).sum())
        for n in (1, 2, 3, 4)
        for data in [SiteFolder(folder / "sites" / f"site-{n}").read()]
    }
    assert sum(held_back.values()) > 0
    later = {u.site: u.result["new_after"]["n"] for u in record.edge_updates if u.round == 2}
    assert later == held_back


def test_a_run_with_distillation_takes_up_a_class_that_the_teacher_lacks(tmp_path: Path) -> None:
    new = NewClass(code="vasc", round=1, site="site-1")
    folder = run_tiny(tmp_path, {"new_class": new}, distillation=1.0)
    assert record_of(folder).rounds[1].sites_aggregated == 4
    state = state_of(folder)
    assert state is not None and state.classes[-1] == "vasc"
    assert trained_part(state.floating)["head/bias"].shape == (6,)
    assert trained_part(state.quantized)["head/bias"].shape == (7,)


def test_a_site_that_gets_no_teacher_says_so(tmp_path: Path) -> None:
    folder = SiteFolder(create_tiny(tmp_path) / "sites" / "site-1")
    data = folder.read()
    ask = TrainAsk(
        run="tiny",
        round=2,
        phase="qat",
        classes=data.classes.codes,
        config=TINY,
        epochs=1,
        batch=16,
        learning_rate=1e-3,
        prior_strength=1.0,
        proximal=0.0,
        balance="prior",
        seed=0,
        distillation=1.0,
    )
    assert train(Instruction("train", ask), ask, folder, data).error == "bad-instruction"
