import socket
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, event, make_url

from common.errors import (
    DatabaseUnreachable,
    FedqanaError,
    SchemaMismatch,
    SettingsError,
    StateDamaged,
    StorageFull,
)
from server.history import schema
from server.history.records import Round
from server.history.store import open_history
from tests.history.examples import START, example_record, example_run, save_all

SECRET = "correct horse"  # quoted in a URL


def message_of(error: pytest.ExceptionInfo[Any]) -> str:
    text = str(error.value)
    assert "\n" not in text and "horse" not in text
    return text


def test_no_server_is_one_line_within_the_timeout() -> None:
    url = "postgresql+psycopg://fedqana:correct%20horse@127.0.0.1:1/history?sslpassword=horse"
    began = time.monotonic()
    for look in (schema.check, schema.upgrade, open_history):
        with pytest.raises(DatabaseUnreachable) as error:
            look(url)
        assert "fedqana:***@127.0.0.1:1/history?sslpassword=***" in message_of(error)
        assert "refused" in message_of(error)
    assert time.monotonic() - began < 10


def test_a_server_that_never_answers_is_given_up_after_five_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(DatabaseUnreachable, match="timeout"):
            schema.check(f"postgresql+psycopg://fedqana@127.0.0.1:{port}/history")
        assert 4 < time.monotonic() - began < 8


@pytest.mark.parametrize("part", ["database", "username"])
def test_a_refused_login_does_not_show_the_password(postgresql_server: str, part: str) -> None:
    url = make_url(postgresql_server).set(password=SECRET)
    nobody = "nobody_of_this_name"
    url = url.set(database=nobody) if part == "database" else url.set(username=nobody)
    with pytest.raises(DatabaseUnreachable, match=r"does not exist|authentication failed") as error:
        open_history(url.render_as_string(hide_password=False))
    message_of(error)


def test_a_mismatch_does_not_show_the_password(postgresql_url: str) -> None:
    url = make_url(postgresql_url).set(password=SECRET)
    with pytest.raises(SchemaMismatch, match=r"upgrade --database 'postgresql.*:\*\*\*@") as error:
        schema.check(url.render_as_string(hide_password=False))
    message_of(error)


@pytest.mark.parametrize(
    "url",
    [
        "history.db",
        "",
        "mysql://fedqana:horse@host/history",
        "postgresql+nosuchdriver://fedqana:horse@host/history",
        "postgresql://fedqana:horse@host:port/history",
        "sqlite://",
        "sqlite:///:memory:",
    ],
)
def test_a_url_that_means_nothing_says_what_to_write(url: str) -> None:
    with pytest.raises(SettingsError, match=r"sqlite:///|postgresql\+psycopg://") as error:
        open_history(url)
    message_of(error)


def test_a_full_sqlite_disk_loses_nothing_saved_before(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'history.db'}"
    record = example_record()
    with open_history(url) as history:
        save_all(history, record)
        history._database.close()

        # SQLite treats its page limit like a full disk.
        @event.listens_for(history._database._engine, "connect")
        def limit(connection: sqlite3.Connection, _: object) -> None:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {pages}")

        with pytest.raises(StorageFull, match="disk is full; free some space"):
            history.save_run(example_run("x" * 100_000))
    with open_history(url) as history:
        assert history.load_record("run-1") == record


def fail_on_rounds(url: str, what: str) -> None:
    """Let PostgreSQL itself fail when a round is written."""
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN {what}; RETURN NEW; END $$"
        )
        connection.exec_driver_sql(
            "CREATE TRIGGER fail BEFORE INSERT ON rounds FOR EACH ROW EXECUTE FUNCTION fail()"
        )
    engine.dispose()


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("RAISE EXCEPTION 'no space' USING ERRCODE = 'disk_full'", StorageFull),
        ("RAISE EXCEPTION 'no' USING ERRCODE = 'insufficient_privilege'", StorageFull),
        ("RAISE EXCEPTION 'no' USING ERRCODE = 'data_corrupted'", StateDamaged),
        ("PERFORM pg_terminate_backend(pg_backend_pid())", DatabaseUnreachable),
    ],
)
def test_what_fails_in_postgresql_is_told_and_undone(
    postgresql_url: str, what: str, error: type[FedqanaError]
) -> None:
    with open_history(postgresql_url) as history:
        history.save_run(example_run())
        fail_on_rounds(postgresql_url, what)
        with pytest.raises(error) as raised:
            history.save_round(Round("run-1", 1, "float", START, None, 1, 0))
        assert "\n" not in str(raised.value)
        # The next call works again, on a new connection if need be.
        history.finish_run("run-1", "stopped")
        assert history.load_record("run-1").rounds == []


def test_connections_that_died_in_between_are_replaced(postgresql_url: str) -> None:
    with open_history(postgresql_url) as history:
        history.save_run(example_run())
        engine = create_engine(postgresql_url)
        with engine.connect() as connection:
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        engine.dispose()
        history.add_event("run-1", "kind", "message")
        assert len(history.load_record("run-1").events) == 1


def test_a_locked_sqlite_file_is_told(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'history.db'}?timeout=0.2"
    with open_history(url) as history:
        history.save_run(example_run())
        other = sqlite3.connect(tmp_path / "history.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseUnreachable, match="locked by another process"):
            history.finish_run("run-1", "finished")
        assert history.get_run("run-1").state == "running"  # readers do not wait
        other.execute("ROLLBACK")
        other.close()
        history.finish_run("run-1", "finished")


def test_a_locked_postgresql_table_is_told(postgresql_url: str) -> None:
    url = make_url(postgresql_url).update_query_dict({"options": "-c lock_timeout=200ms"})
    with open_history(url.render_as_string(hide_password=False)) as history:
        history.save_run(example_run())
        engine = create_engine(postgresql_url)
        with engine.begin() as connection:
            connection.exec_driver_sql("LOCK TABLE runs IN EXCLUSIVE MODE")
            with pytest.raises(DatabaseUnreachable, match="locked by another process"):
                history.finish_run("run-1", "finished")
        engine.dispose()
        history.finish_run("run-1", "finished")


def test_postgresql_waits_for_a_lock_for_ten_seconds(postgresql_url: str) -> None:
    with open_history(postgresql_url) as history, history._database.reading() as connection:
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar() == "10s"


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "history.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StateDamaged, match="is damaged"):
        open_history(f"sqlite:///{tmp_path / 'history.db'}")


def test_a_folder_in_place_of_the_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnreachable, match="unable to open"):
        open_history(f"sqlite:///{tmp_path}")


def test_a_read_only_sqlite_history_is_told(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'history.db'}"
    with open_history(url) as history:
        history.save_run(example_run())
        history._database.close()

        # Root may write everything: let SQLite itself refuse.
        @event.listens_for(history._database._engine, "connect")
        def refuse(connection: sqlite3.Connection, _: object) -> None:
            connection.execute("PRAGMA query_only = ON")

        with pytest.raises(StorageFull, match="make it writable"):
            history.finish_run("run-1", "finished")
        assert history.get_run("run-1").state == "running"
