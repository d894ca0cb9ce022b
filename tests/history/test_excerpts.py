"""Reading only the newest rows of a run gives the same record as reading all of it."""

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from common.errors import DatabaseUnreachable, RunNotFound, SchemaMismatch
from server.history.excerpts import Excerpts, open_excerpts
from server.history.records import RunRecord
from server.history.store import History
from tests.dashboard.filled import RUNNING, save, shifted, under_way
from tests.report.sample_record import complete

START = datetime(2026, 5, 4, 8, 0, tzinfo=UTC)


@pytest.fixture
def excerpts(history: History, url: str) -> Iterator[Excerpts]:
    with open_excerpts(url) as opened:
        yield opened


def stage(number: int) -> RunRecord:
    """The run in its round ``number``, without events."""
    whole = dataclasses.replace(shifted(complete(), RUNNING, START), events=[])
    return under_way(whole, number)


def all_of(history: History) -> RunRecord:
    return dataclasses.replace(history.load_record(RUNNING), events=[])


def test_a_run_is_followed_from_its_first_round_to_its_end(
    history: History, excerpts: Excerpts
) -> None:
    known = None
    for number in range(1, 7):
        save(history, stage(number))
        found = excerpts.record(RUNNING, known)
        assert found == all_of(history)
        assert excerpts.record(RUNNING, found) is found
        known = found
    save(history, dataclasses.replace(shifted(complete(), RUNNING, START), events=[]))
    ended = excerpts.record(RUNNING, known)
    assert ended == all_of(history)
    assert any(result.step == "final" for result in ended.site_results)
    assert excerpts.record(RUNNING, ended) is ended


def test_rows_of_finished_rounds_are_taken_from_what_is_known(
    history: History, excerpts: Excerpts
) -> None:
    save(history, stage(4))
    known = excerpts.record(RUNNING)
    save(history, stage(5))
    found = excerpts.record(RUNNING, known)
    assert found.site_results[0] is known.site_results[0]
    assert found == all_of(history)


def test_a_round_that_was_done_again_is_read_again(history: History, excerpts: Excerpts) -> None:
    save(history, stage(5))
    known = excerpts.record(RUNNING)
    again = dataclasses.replace(known.rounds[2], started_at=START + timedelta(days=1))
    history.save_round(again)
    result = next(r for r in known.site_results if r.round == 3 and r.step == "train")
    history.save_site_result(dataclasses.replace(result, seconds=99.0))
    found = excerpts.record(RUNNING, known)
    assert found == all_of(history)
    assert 99.0 in {r.seconds for r in found.site_results}


def test_another_run_of_the_same_name_is_read_whole(history: History, excerpts: Excerpts) -> None:
    save(history, stage(4))
    known = excerpts.record(RUNNING)
    other = dataclasses.replace(
        known, run=dataclasses.replace(known.run, created_at=START.min.replace(tzinfo=UTC))
    )
    found = excerpts.record(RUNNING, other)
    assert found == all_of(history)
    assert found.site_results[0] is not other.site_results[0]


def test_versions_and_outcomes_are_of_the_runs_asked_for(
    history: History, excerpts: Excerpts
) -> None:
    save(history, stage(4))
    later = dataclasses.replace(shifted(complete(), "later", START + timedelta(days=1)), events=[])
    save(history, later)
    assert [(v.run_id, v.version) for v in excerpts.versions(2)] == [("later", 6), ("later", 5)]
    assert [v.version for v in excerpts.versions_of(RUNNING)] == [3, 2, 1]
    outcomes = excerpts.outcomes([RUNNING])
    assert {u.run_id for u in outcomes} == {RUNNING}
    assert all(u.result == {} for u in outcomes)
    assert len(outcomes) == len(stage(4).edge_updates)


def test_nothing_is_made_where_there_is_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new' / 'history.db'}"
    with pytest.raises(DatabaseUnreachable, match="there is no database"):
        open_excerpts(url)
    (tmp_path / "empty.db").touch()
    with pytest.raises(SchemaMismatch, match="is empty"):
        open_excerpts(f"sqlite:///{tmp_path / 'empty.db'}")
    assert [path.name for path in tmp_path.iterdir()] == ["empty.db"]


def test_a_run_that_is_not_there(history: History, excerpts: Excerpts) -> None:
    with pytest.raises(RunNotFound):
        excerpts.record("nothing")
