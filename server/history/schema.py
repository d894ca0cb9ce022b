"""The database's schema version: read, compared with this program's, and brought up to it."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from common.errors import DatabaseUnreachable, SchemaMismatch
from server.history.engine import Database
from server.history.records import SchemaStatus
from server.history.tables import metadata

# Not Alembic's own name: a database shared with another program may have that table already.
VERSION_TABLE = "fedqana_version"
MIGRATIONS = Path(__file__).parent / "migrations"

# Any fixed number that no other program on the same PostgreSQL database is likely to lock.
_ADVISORY_LOCK = 0x666564_71616E61


def check(url: str) -> None:
    """Raise unless the database at ``url`` has the schema that this program works with.

    Raises
    ------
    SchemaMismatch
        Too old, too new, empty, or another program's; the line names the command to run.
    DatabaseUnreachable
        When there is no such database or it does not answer.
    """
    database = Database(url)
    try:
        _require_current(database, _existing_status(database))
    finally:
        database.close()


def status(url: str) -> SchemaStatus:
    """Tell the schema version of the database at ``url``, whatever it is.

    Raises DatabaseUnreachable when there is no such database or it does not answer.
    """
    database = Database(url)
    try:
        return _existing_status(database)
    finally:
        database.close()


def upgrade(url: str) -> SchemaStatus:
    """Bring the database at ``url`` to this program's schema, creating what is not there.

    All steps happen in one transaction: an upgrade that is killed leaves the database as it was.

    Returns
    -------
    SchemaStatus
        As found before the upgrade.

    Raises
    ------
    SchemaMismatch
        When the database is newer than this program or has tables of another one.
    """
    database = Database(url)
    try:
        return upgrade_database(database)
    finally:
        database.close()


def upgrade_database(database: Database) -> SchemaStatus:
    """Do what `upgrade` does on a database that is open already."""
    database.make_folder()
    with database.writing() as connection:
        if database.kind == "postgresql":
            # Two processes may meet on a new database; SQLite's lock is the transaction itself.
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
        found = _status(database, connection)
        if found.state in ("newer", "foreign"):
            _require_current(database, found)
        config = _config()
        config.attributes["connection"] = connection
        config.attributes["version_table"] = VERSION_TABLE
        command.upgrade(config, "head")
    return found


def prepare(database: Database, create: bool) -> None:
    """Make sure that the database can be worked with; an empty one is set up if ``create``.

    Raises SchemaMismatch or DatabaseUnreachable, as `check` does.
    """
    if create:
        database.make_folder()
        with database.reading() as connection:
            found = _status(database, connection)
        if found.state == "empty":
            upgrade_database(database)
            return
    else:
        found = _existing_status(database)
    _require_current(database, found)


def _existing_status(database: Database) -> SchemaStatus:
    if not database.exists():
        raise DatabaseUnreachable(
            f"there is no history {database.shown}; start a run with fedqana simulate, or say "
            "where the history is with --out or --database"
        )
    with database.reading() as connection:
        return _status(database, connection)


def _status(database: Database, connection: Connection) -> SchemaStatus:
    scripts = ScriptDirectory.from_config(_config())
    known = [script.revision for script in scripts.walk_revisions()]
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    version = context.get_current_revision()
    if version is None:
        tables = set(inspect(connection).get_table_names())
        state = "foreign" if tables & set(metadata.tables) else "empty"
    elif version == known[0]:
        state = "current"
    else:
        state = "older" if version in known else "newer"
    return SchemaStatus(database.shown, state, version, known[0])


def _require_current(database: Database, found: SchemaStatus) -> None:
    match found.state:
        case "empty":
            raise SchemaMismatch(
                f"the database {found.database} is empty; set it up with: "
                f"{database.upgrade_command()}"
            )
        case "older":
            raise SchemaMismatch(
                f"the history {found.database} has schema {found.version}, older than this "
                f"program's {found.needed}; run: {database.upgrade_command()}"
            )
        case "newer":
            raise SchemaMismatch(
                f"the history {found.database} has schema {found.version}, which this program "
                f"(schema {found.needed}) does not know; install a newer fedqana: "
                "pip install --upgrade fedqana"
            )
        case "foreign":
            raise SchemaMismatch(
                f"the database {found.database} has tables of another program under the names of "
                "the history's; choose another database with --database"
            )


def _config() -> Config:
    config = Config()
    # ConfigParser would take a percent sign in the path for an interpolation.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config
