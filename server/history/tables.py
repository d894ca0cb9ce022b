"""The history's tables; each column is named after its field in `server.history.records`."""

import math
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
)
from sqlalchemy.types import TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """A moment that goes in and comes out with a time zone, always UTC when it comes out."""

    # SQLite has no time zones: it keeps the UTC clock reading, PostgreSQL a timestamptz.
    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC; a time without a zone raises ValueError, as nobody knows what it means.

        Parameters
        ----------
        value : datetime or None
            A timezone-aware moment.
        dialect : Dialect
            The database's SQLAlchemy dialect.
        """
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone; use datetime.now(UTC)")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the stored moment in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class FiniteJson(TypeDecorator[Any]):
    """JSON where NaN and infinities become null: PostgreSQL refuses them, as JSON does."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Replace every float that is not finite, however deep, by None."""
        return _finite(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


metadata = MetaData()


def _run_key() -> Column[str]:
    # The only foreign key. Rounds and sites are not referenced: a handshake has no round, and
    # a refused reply may come from a site that never was accepted.
    return Column("run_id", Text, ForeignKey("runs.run_id"), primary_key=True)


runs = Table(
    "runs",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("state", Text, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("strategy", Text, nullable=False),
    Column("data", Text, nullable=False),
    Column("folder", Text, nullable=False),
    Column("classes", FiniteJson, nullable=False),
    Column("plan", FiniteJson, nullable=False),
    Column("software", FiniteJson, nullable=False),
    Column("finished_at", UtcDateTime),
    Column("reason", Text, nullable=False),
    # `runs list` and RUN = latest read the runs newest first.
    Index("ix_runs_created_at", "created_at"),
)

# From here on the primary key's own index starts with run_id and goes on with the round: it
# finds one run's rows, in the order in which they are read, so no second index is needed.
sites = Table(
    "sites",
    metadata,
    _run_key(),
    Column("name", Text, primary_key=True),
    Column("accepted", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("n_train", Integer, nullable=False),
    Column("n_validation", Integer, nullable=False),
    Column("n_test", Integer, nullable=False),
)

rounds = Table(
    "rounds",
    metadata,
    _run_key(),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("phase", Text, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
    Column("sites_asked", Integer, nullable=False),
    Column("sites_aggregated", Integer, nullable=False),
    Column("seconds", FiniteJson, nullable=False),
)

site_results = Table(
    "site_results",
    metadata,
    _run_key(),
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("site", Text, primary_key=True),
    Column("step", Text, primary_key=True),
    Column("accepted", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("bytes_down", BigInteger, nullable=False),
    Column("bytes_up", BigInteger, nullable=False),
    Column("result", FiniteJson, nullable=False),
)

model_versions = Table(
    "model_versions",
    metadata,
    _run_key(),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("phase", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("folder", Text, nullable=False),
    Column("card_sha256", Text, nullable=False),
    Column("fit", FiniteJson, nullable=False),
    Column("metrics", FiniteJson, nullable=False),
)

edge_updates = Table(
    "edge_updates",
    metadata,
    _run_key(),
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("site", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("switched", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("cases_learned", Integer, nullable=False),
    Column("result", FiniteJson, nullable=False),
)

events = Table(
    "events",
    metadata,
    # SQLite numbers rows by itself only in a column of type INTEGER; with AUTOINCREMENT it
    # never gives a number twice.
    Column(
        "number",
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=True,
        autoincrement=True,
    ),
    Column("run_id", Text, ForeignKey("runs.run_id"), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("kind", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("round", Integer),
    Column("site", Text),
    # One run's trail in order: the primary key does not start with the run here.
    Index("ix_events_run_id_number", "run_id", "number"),
    sqlite_autoincrement=True,
)

members = Table(
    "members",
    metadata,
    Column("name", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("code_sha256", Text, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("public_key", Text, nullable=False),
    # Flower's node ids are unsigned 64-bit integers: text.
    Column("node_id", Text, nullable=False),
    Column("software", FiniteJson, nullable=False),
    Column("invited_at", UtcDateTime, nullable=False),
    Column("joined_at", UtcDateTime),
    Column("approved_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
    Column("heard_at", UtcDateTime),
)


def _numbered() -> Column[int]:
    return Column(
        "number",
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=True,
        autoincrement=True,
    )


audit = Table(
    "audit",
    metadata,
    _numbered(),
    Column("at", UtcDateTime, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", Text, nullable=False),
    sqlite_autoincrement=True,
)

promotions = Table(
    "promotions",
    metadata,
    _numbered(),
    Column("at", UtcDateTime, nullable=False),
    Column("run_id", Text, ForeignKey("runs.run_id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("action", Text, nullable=False),
    sqlite_autoincrement=True,
)
