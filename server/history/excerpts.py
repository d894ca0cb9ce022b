"""Parts of the history for whoever looks at it again and again: reads only, sets nothing up.

A run's whole record takes a second to read once it has 30 rounds of eight sites, as it holds
every site's counts. What is here reads the newest rows only.
"""

from collections.abc import Collection
from dataclasses import fields
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, Select, Table, select

from common.errors import DatabaseUnreachable
from server.history import tables
from server.history.engine import Database
from server.history.membership import Membership
from server.history.records import (
    AuditLine,
    EdgeUpdate,
    Event,
    ModelVersion,
    Round,
    RunRecord,
    Site,
    SiteResult,
)
from server.history.schema import prepare
from server.history.store import History

T = TypeVar("T")


def open_excerpts(url: str) -> "Excerpts":
    """Open the database at ``url`` to read from it; it is neither created nor upgraded.

    Raises
    ------
    DatabaseUnreachable
        When it is not there or does not answer.
    SchemaMismatch
        When its schema is not this program's; the line names the command to run.
    SettingsError
        When ``url`` is not a SQLite or PostgreSQL URL.
    """
    database = Database(url)
    try:
        if not database.exists():
            raise DatabaseUnreachable(
                f"there is no database {database.shown}; restore it from a backup, or set one up "
                f"with: {database.upgrade_command()}"
            )
        prepare(database, create=False)
    except BaseException:
        database.close()
        raise
    return Excerpts(database)


class Excerpts:
    """The history and the members of one coordinator, for reading.

    Parameters
    ----------
    database : Database
        Of this program's schema; closed with this object.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.history = History(database)
        self.members = Membership(database)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._database.close()

    def trail(self, limit: int, before: int | None = None) -> list[AuditLine]:
        """Lines of the audit trail, newest first; only those numbered below ``before``."""
        query = select(tables.audit).order_by(tables.audit.c.number.desc()).limit(limit)
        if before is not None:
            query = query.where(tables.audit.c.number < before)
        return self._read(query, AuditLine)

    def events(
        self,
        run_id: str,
        limit: int,
        before: int | None = None,
        kinds: Collection[str] | None = None,
    ) -> list[Event]:
        """Events of a run, newest first; only those numbered below ``before`` and of ``kinds``."""
        table = tables.events
        query = select(table).where(table.c.run_id == run_id)
        query = query.order_by(table.c.number.desc()).limit(limit)
        if before is not None:
            query = query.where(table.c.number < before)
        if kinds is not None:
            query = query.where(table.c.kind.in_(kinds))
        return self._read(query, Event)

    def versions(self, limit: int) -> list[ModelVersion]:
        """The newest model versions of all runs, newest first."""
        table = tables.model_versions
        order = table.c.created_at.desc(), table.c.run_id, table.c.version.desc()
        return self._read(select(table).order_by(*order).limit(limit), ModelVersion)

    def versions_of(self, run_id: str) -> list[ModelVersion]:
        """A run's model versions, newest first."""
        table = tables.model_versions
        query = select(table).where(table.c.run_id == run_id).order_by(table.c.version.desc())
        return self._read(query, ModelVersion)

    def outcomes(self, run_ids: Collection[str]) -> list[EdgeUpdate]:
        """What the sites of these runs did with each version, in order; without ``result``."""
        table = tables.edge_updates
        columns = [column for column in table.c if column.name != "result"]
        query = select(*columns).where(table.c.run_id.in_(run_ids))
        return self._read(query.order_by(*table.primary_key.columns), EdgeUpdate)

    def record(self, run_id: str, known: RunRecord | None = None) -> RunRecord:
        """Everything known of one run but its events, as of one moment.

        Parameters
        ----------
        run_id : str
            As in `History.get_run`.
        known : RunRecord, optional
            An earlier record. Rows of rounds that it has to their end are taken from it, and the
            record itself is returned where nothing changed.
        """
        run = self.history.get_run(run_id)
        if known is not None and known.run == run and run.state != "running":
            return known

        def of_run(table: Table, first: int | None = None) -> Select[Any]:
            query = select(table).where(table.c.run_id == run.run_id)
            query = query.order_by(*table.primary_key.columns)
            return query if first is None else query.where(table.c.round >= first)

        with self._database.reading() as connection:
            rounds = _rows(connection, of_run(tables.rounds), Round)
            same_run = known is not None and known.run.created_at == run.created_at
            first = _first_open_round(known.rounds, rounds) if known and same_run else None
            found = RunRecord(
                run=run,
                sites=_rows(connection, of_run(tables.sites), Site),
                rounds=rounds,
                site_results=_rows(connection, of_run(tables.site_results, first), SiteResult),
                versions=_rows(connection, of_run(tables.model_versions), ModelVersion),
                edge_updates=_rows(connection, of_run(tables.edge_updates, first), EdgeUpdate),
                events=[],
            )
        if known is None or first is None:
            return found
        found.site_results[:0] = [r for r in known.site_results if r.round < first]
        found.edge_updates[:0] = [u for u in known.edge_updates if u.round < first]
        return known if found == known else found

    def _read(self, query: Select[Any], kind: type[T]) -> list[T]:
        with self._database.reading() as connection:
            return _rows(connection, query, kind)


def _rows(connection: Connection, query: Select[Any], kind: type[T]) -> list[T]:
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    rows = connection.execute(query).mappings()
    return [kind(**{str(k): v for k, v in row.items() if k in names}) for row in rows]


def _first_open_round(known: list[Round], now: list[Round]) -> int | None:
    """Number of the first round whose rows may have changed since; None where any may have.

    A round's rows are complete once it is finished, but for the last one's: the final test's
    results join them.
    """
    if not known or not now:
        return None
    for before, after in zip(known, now, strict=False):
        if before != after or before.finished_at is None:
            return before.number
    return min(known[-1].number + 1, now[-1].number)
