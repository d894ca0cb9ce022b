"""The first schema: seven tables, the last of them append-only."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_APPEND_ONLY = "events are append-only: they cannot be changed or deleted"

_SQLITE = (
    f"""
    CREATE TRIGGER events_no_update BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, '{_APPEND_ONLY}'); END
    """,
    f"""
    CREATE TRIGGER events_no_delete BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, '{_APPEND_ONLY}'); END
    """,
    # INSERT OR REPLACE deletes the old row without asking the trigger above. The number is
    # negative here when SQLite is still to choose it.
    f"""
    CREATE TRIGGER events_no_replace BEFORE INSERT ON events
    WHEN NEW.number > 0 AND EXISTS (SELECT 1 FROM events WHERE number = NEW.number)
    BEGIN SELECT RAISE(ABORT, '{_APPEND_ONLY}'); END
    """,
)

_POSTGRESQL = (
    f"""
    CREATE FUNCTION events_append_only() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION '{_APPEND_ONLY}' USING ERRCODE = 'restrict_violation'; END $$
    """,
    """
    CREATE TRIGGER events_no_change BEFORE UPDATE OR DELETE ON events
    FOR EACH ROW EXECUTE FUNCTION events_append_only()
    """,
    """
    CREATE TRIGGER events_no_truncate BEFORE TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION events_append_only()
    """,
)


def _moment(name: str, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _number(name: str, kind: type[sa.Integer] = sa.Integer) -> sa.Column[int]:
    return sa.Column(name, kind, nullable=False)


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean, nullable=False)


def _json(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.JSON, nullable=False)


def _of_run(*key: str) -> tuple[sa.PrimaryKeyConstraint, sa.ForeignKeyConstraint]:
    return (
        sa.PrimaryKeyConstraint("run_id", *key),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"]),
    )


def upgrade() -> None:
    """Create the tables, their indexes and the triggers that keep the events as they are."""
    op.create_table(
        "runs",
        _text("run_id"),
        _moment("created_at"),
        _text("state"),
        _number("seed", sa.BigInteger),
        _text("strategy"),
        _text("data"),
        _text("folder"),
        _json("classes"),
        _json("plan"),
        _json("software"),
        _moment("finished_at", nullable=True),
        _text("reason"),
        sa.PrimaryKeyConstraint("run_id"),
    )
    op.create_index("ix_runs_created_at", "runs", ["created_at"])
    op.create_table(
        "sites",
        _text("run_id"),
        _text("name"),
        _flag("accepted"),
        _text("reason"),
        _number("n_train"),
        _number("n_validation"),
        _number("n_test"),
        *_of_run("name"),
    )
    op.create_table(
        "rounds",
        _text("run_id"),
        _number("number"),
        _text("phase"),
        _moment("started_at"),
        _moment("finished_at", nullable=True),
        _number("sites_asked"),
        _number("sites_aggregated"),
        _json("seconds"),
        *_of_run("number"),
    )
    op.create_table(
        "site_results",
        _text("run_id"),
        _number("round"),
        _text("site"),
        _text("step"),
        _flag("accepted"),
        _text("reason"),
        sa.Column("seconds", sa.Double, nullable=False),
        _number("bytes_down", sa.BigInteger),
        _number("bytes_up", sa.BigInteger),
        _json("result"),
        *_of_run("round", "site", "step"),
    )
    op.create_table(
        "model_versions",
        _text("run_id"),
        _number("version"),
        _text("phase"),
        _moment("created_at"),
        _text("folder"),
        _text("card_sha256"),
        _json("fit"),
        _json("metrics"),
        *_of_run("version"),
    )
    op.create_table(
        "edge_updates",
        _text("run_id"),
        _number("round"),
        _text("site"),
        _number("version"),
        _flag("switched"),
        _text("reason"),
        _number("cases_learned"),
        _json("result"),
        *_of_run("round", "site"),
    )
    op.create_table(
        "events",
        sa.Column(
            "number",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        _text("run_id"),
        _moment("at"),
        _text("kind"),
        _text("message"),
        sa.Column("round", sa.Integer),
        sa.Column("site", sa.Text),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"]),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_run_id_number", "events", ["run_id", "number"])
    for statement in _SQLITE if op.get_bind().dialect.name == "sqlite" else _POSTGRESQL:
        op.execute(statement)
