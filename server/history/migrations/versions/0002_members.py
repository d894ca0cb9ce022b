"""Members, the audit trail and promotions; the last two are append-only, as events are."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_APPEND_ONLY = ("audit", "promotions")


def _sqlite(table: str) -> list[str]:
    text = f"{table} is append-only: it cannot be changed or deleted"
    return [
        f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} "
        f"BEGIN SELECT RAISE(ABORT, '{text}'); END",
        f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} "
        f"BEGIN SELECT RAISE(ABORT, '{text}'); END",
        # INSERT OR REPLACE deletes the old row without asking the trigger above.
        f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} "
        f"WHEN NEW.number > 0 AND EXISTS (SELECT 1 FROM {table} WHERE number = NEW.number) "
        f"BEGIN SELECT RAISE(ABORT, '{text}'); END",
    ]


def _postgresql(table: str) -> list[str]:
    text = f"{table} is append-only: it cannot be changed or deleted"
    return [
        f"CREATE FUNCTION {table}_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{text}' USING ERRCODE = 'restrict_violation'; END $$",
        f"CREATE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE ON {table} "
        f"FOR EACH ROW EXECUTE FUNCTION {table}_append_only()",
        f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {table}_append_only()",
    ]


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _moment(name: str, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _numbered() -> sa.Column[int]:
    kind = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    return sa.Column("number", kind, primary_key=True, autoincrement=True)


def upgrade() -> None:
    """Create the tables and the triggers that keep two of them as they are."""
    op.create_table(
        "members",
        _text("name"),
        _text("state"),
        _text("code_sha256"),
        _moment("expires_at"),
        _text("public_key"),
        _text("node_id"),
        sa.Column("software", sa.JSON, nullable=False),
        _moment("invited_at"),
        *(_moment(n, nullable=True) for n in ("joined_at", "approved_at", "revoked_at")),
        _moment("heard_at", nullable=True),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "audit",
        _numbered(),
        _moment("at"),
        *(_text(name) for name in ("actor", "action", "subject", "detail")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "promotions",
        _numbered(),
        _moment("at"),
        _text("run_id"),
        sa.Column("version", sa.Integer, nullable=False),
        _text("action"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"]),
        sqlite_autoincrement=True,
    )
    statements = _sqlite if op.get_bind().dialect.name == "sqlite" else _postgresql
    for table in _APPEND_ONLY:
        for statement in statements(table):
            op.execute(statement)
