import shutil
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, inspect

from common.errors import DatabaseUnreachable, SchemaMismatch
from server.history import schema
from server.history.engine import Database
from server.history.store import open_history
from server.history.tables import metadata
from tests.history.examples import example_record, save_all

NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("runs", sa.Column("note", sa.Text))
    if {fails}:
        raise RuntimeError("interrupted")
"""


def next_version(folder: Path, fails: bool = False) -> Path:
    """The migrations of a later FedQANA: this one's and one more."""
    migrations = folder / "50%" / "migrations"
    shutil.copytree(schema.MIGRATIONS, migrations, ignore=shutil.ignore_patterns("__pycache__"))
    (migrations / "versions" / "0003_note.py").write_text(NEXT.format(fails=fails))
    return migrations


def execute(url: str, *statements: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def tables_of(url: str) -> set[str]:
    engine = create_engine(url)
    names = set(inspect(engine).get_table_names())
    engine.dispose()
    return names


def test_the_migrations_make_the_tables_of_the_code(url: str) -> None:
    schema.upgrade(url)
    engine = create_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": schema.VERSION_TABLE, "compare_type": True}
        )
        assert compare_metadata(context, metadata) == []
        # Alembic does not compare primary keys.
        for table in metadata.tables.values():
            found = inspect(connection).get_pk_constraint(table.name)["constrained_columns"]
            assert found == [column.name for column in table.primary_key.columns]
    engine.dispose()


def test_a_new_database_is_set_up_when_it_is_opened(url: str) -> None:
    open_history(url).close()
    schema.check(url)
    assert schema.status(url).state == "current"
    assert tables_of(url) == {*metadata.tables, schema.VERSION_TABLE}


def test_a_sqlite_file_may_lie_in_a_new_folder(tmp_path: Path) -> None:
    open_history(f"sqlite:///{tmp_path / 'new' / 'folder' / 'history.db'}").close()
    assert (tmp_path / "new" / "folder" / "history.db").is_file()


def test_upgrading_twice_does_nothing_the_second_time(url: str) -> None:
    if url.startswith("postgresql"):
        assert schema.status(url).state == "empty"
    assert schema.upgrade(url).state == "empty"
    found = schema.upgrade(url)
    assert (found.state, found.version) == ("current", found.needed)


def test_an_older_schema_names_the_upgrade_which_keeps_the_records(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = example_record()
    with open_history(url) as history:
        save_all(history, record)
    monkeypatch.setattr(schema, "MIGRATIONS", next_version(tmp_path))
    for look in (schema.check, open_history):
        with pytest.raises(SchemaMismatch, match="fedqana database upgrade --database") as raised:
            look(url)
        assert "0002" in str(raised.value) and "\n" not in str(raised.value)
    assert schema.upgrade(url).state == "older"
    schema.check(url)
    with open_history(url) as history:
        assert history.load_record("run-1") == record


def test_an_upgrade_that_fails_leaves_the_database_as_it_was(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_history(url).close()
    with monkeypatch.context() as later:
        later.setattr(schema, "MIGRATIONS", next_version(tmp_path, fails=True))
        with pytest.raises(RuntimeError, match="interrupted"):
            schema.upgrade(url)
    schema.check(url)
    engine = create_engine(url)
    assert "note" not in {column["name"] for column in inspect(engine).get_columns("runs")}
    engine.dispose()


def test_a_newer_schema_asks_for_a_newer_program(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as later:
        later.setattr(schema, "MIGRATIONS", next_version(tmp_path))
        schema.upgrade(url)
    for look in (schema.check, schema.upgrade, open_history):
        with pytest.raises(SchemaMismatch, match=r"0003.*install a newer fedqana"):
            look(url)
    assert schema.status(url).state == "newer"


def test_tables_of_another_program_are_left_alone(url: str) -> None:
    execute(url, "CREATE TABLE runs (id INTEGER)", "CREATE TABLE alembic_version (v INTEGER)")
    for look in (schema.check, schema.upgrade, open_history):
        with pytest.raises(SchemaMismatch, match="another program"):
            look(url)
    assert tables_of(url) == {"runs", "alembic_version"}


def test_an_empty_database_is_not_set_up_by_reading(postgresql_url: str) -> None:
    with pytest.raises(SchemaMismatch, match=r"is empty.*fedqana database upgrade"):
        open_history(postgresql_url, create=False)
    assert tables_of(postgresql_url) == set()


def test_reading_makes_no_sqlite_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'history.db'}"
    for look in (schema.check, schema.status, lambda u: open_history(u, create=False)):
        with pytest.raises(DatabaseUnreachable, match="there is no history"):
            look(url)
    assert list(tmp_path.iterdir()) == []


def test_sqlite_runs_with_the_settings_that_the_docs_promise(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'history.db'}")
    with database.reading() as connection:
        values = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "foreign_keys", "busy_timeout", "synchronous")
        }
    database.close()
    assert values == {
        "journal_mode": "wal",
        "foreign_keys": 1,
        "busy_timeout": 10_000,
        "synchronous": 2,
    }


def test_the_migrations_lie_inside_the_package() -> None:
    assert (schema.MIGRATIONS / "env.py").is_file()
    assert not list(schema.MIGRATIONS.rglob("*.ini"))
