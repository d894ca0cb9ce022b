from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError

from common.errors import RunNotFound
from server.history.records import Round, Run, RunSummary, Site
from server.history.store import History, open_history
from tests.history.examples import START, example_record, example_run, save_all


def test_every_record_comes_back_as_it_was_saved(history: History, url: str) -> None:
    record = example_record()
    save_all(history, record)
    assert history.load_record("run-1") == record
    with open_history(url) as again:
        assert again.load_record("run-1") == record


def test_saving_again_changes_nothing(history: History) -> None:
    record = example_record()
    save_all(history, record)
    save_all(history, record)
    assert history.load_record("run-1") == record


def test_saving_a_key_again_replaces_its_row_only(history: History) -> None:
    record = example_record()
    save_all(history, record)
    finished = replace(record.rounds[1], finished_at=START, sites_aggregated=2, seconds={"a": 1.0})
    history.save_round(finished)
    assert history.load_record("run-1").rounds == [record.rounds[0], finished]


def test_times_come_back_in_utc(history: History) -> None:
    save_all(history, example_record())
    moment = history.load_record("run-1").rounds[0].started_at
    assert moment.tzinfo is UTC and moment == START


def test_a_time_without_zone_is_refused(history: History) -> None:
    with pytest.raises(Exception, match="no time zone"):
        history.save_run(example_run(created_at=datetime(2025, 1, 1)))
    assert history.list_runs() == []


def test_json_keeps_no_nan(history: History) -> None:
    history.save_run(replace(example_run(), plan={"a": [float("nan"), 1.0], "b": float("inf")}))
    assert history.get_run("run-1").plan == {"a": [None, 1.0], "b": None}


def test_finishing_a_run_and_resuming_it(history: History) -> None:
    history.save_run(example_run())
    history.finish_run("run-1", "failed", "quorum missed")
    run = history.get_run("run-1")
    assert (run.state, run.reason) == ("failed", "quorum missed")
    assert run.finished_at is not None
    assert abs(datetime.now(UTC) - run.finished_at) < timedelta(minutes=1)
    history.save_run(example_run())
    assert history.get_run("run-1") == example_run()


def test_a_new_class_is_appended(history: History) -> None:
    history.save_run(example_run())
    history.set_classes("run-1", ("nv", "mel", "new"))
    assert history.get_run("run-1") == replace(example_run(), classes=("nv", "mel", "new"))


def test_runs_are_listed_newest_first(history: History) -> None:
    for days, run_id in enumerate(("old", "new", "newest")):
        history.save_run(example_run(run_id, START + timedelta(days=days)))
    assert [run.run_id for run in history.list_runs()] == ["newest", "new", "old"]
    assert history.get_run("latest").run_id == "newest"


def test_summaries_count_sites_and_finished_rounds(history: History) -> None:
    save_all(history, example_record())
    other = example_run("empty", START - timedelta(days=1))
    history.save_run(other)
    assert history.list_summaries() == [
        RunSummary(example_run(), sites=2, sites_accepted=1, rounds_finished=1),
        RunSummary(other, sites=0, sites_accepted=0, rounds_finished=0),
    ]


def test_a_run_is_found_by_a_unique_beginning_of_its_id(history: History) -> None:
    for run_id in ("abc-1", "abc-12", "x%y"):
        history.save_run(example_run(run_id))
    assert history.get_run("x").run_id == "x%y"
    assert history.get_run("abc-1").run_id == "abc-1"
    assert history.load_record("abc-12").run.run_id == "abc-12"
    with pytest.raises(RunNotFound, match="abc-1, abc-12"):
        history.get_run("abc")


def test_an_unknown_run_names_those_there_are(history: History) -> None:
    with pytest.raises(RunNotFound, match="none yet"):
        history.get_run("latest")
    for number in range(7):
        history.save_run(example_run(f"run-{number}", START + timedelta(days=number)))
    with pytest.raises(RunNotFound, match=r"there are: run-6, .*, run-2 and 2 more"):
        history.load_record("nothing")


def test_nothing_is_written_for_a_run_that_does_not_exist(history: History) -> None:
    with pytest.raises(RunNotFound):
        history.save_site(Site("ghost", "berlin", True, "", 1, 1, 1))
    with pytest.raises(RunNotFound):
        history.save_round(Round("ghost", 1, "float", START, None, 1, 0))
    with pytest.raises(RunNotFound):
        history.add_event("ghost", "kind", "message")
    with pytest.raises(RunNotFound):
        history.finish_run("ghost", "finished")


def test_records_of_other_runs_stay_out(history: History) -> None:
    save_all(history, example_record())
    history.save_run(example_run("run-2"))
    history.add_event("run-2", "start", "of the other")
    assert history.load_record("run-1") == example_record()


def test_events_are_numbered_in_order(history: History) -> None:
    history.save_run(example_run())
    history.add_event("run-1", "start", "100 % :ok: 'quoted'")
    history.add_event("run-1", "missing", "no answer", round=2, site="berlin")
    first, second = history.load_record("run-1").events
    assert first.number < second.number and first.at <= second.at
    assert (first.message, first.round, first.site) == ("100 % :ok: 'quoted'", None, None)
    assert (second.kind, second.round, second.site) == ("missing", 2, "berlin")


CHANGES = [
    "UPDATE events SET message = 'other'",
    "DELETE FROM events",
]
CHANGES_BY_DIALECT = {
    "sqlite": [
        "INSERT OR REPLACE INTO events (number, run_id, at, kind, message) "
        "SELECT number, run_id, at, kind, 'other' FROM events",
        "UPDATE OR REPLACE events SET message = 'other'",
    ],
    "postgresql": [
        "TRUNCATE events",
        "TRUNCATE runs CASCADE",
        "INSERT INTO events SELECT * FROM events ON CONFLICT (number) DO UPDATE SET kind = 'x'",
    ],
}


def test_events_cannot_be_changed_by_sql(history: History, url: str) -> None:
    history.save_run(example_run())
    for number in range(3):
        history.add_event("run-1", "kind", f"message {number}")
    before = history.load_record("run-1").events
    # A connection of its own, without the history's settings, as an outsider would have.
    engine = create_engine(url)
    for statement in CHANGES + CHANGES_BY_DIALECT[engine.dialect.name]:
        with pytest.raises(DBAPIError, match="append-only"), engine.begin() as connection:
            connection.exec_driver_sql(statement)
    engine.dispose()
    history.add_event("run-1", "kind", "message 3")
    after = history.load_record("run-1").events
    assert after[:3] == before and len(after) == 4


def test_a_run_with_events_cannot_be_deleted(history: History) -> None:
    history.save_run(example_run())
    history.add_event("run-1", "kind", "message")
    with (
        pytest.raises(DBAPIError, match=r"(?i)foreign key"),
        history._database.writing() as connection,
    ):
        connection.exec_driver_sql("DELETE FROM runs")
    assert isinstance(history.get_run("run-1"), Run)
