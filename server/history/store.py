"""The history's reads and writes: plain values in, plain values out, one transaction each."""

from dataclasses import fields
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection, RowMapping, Select, Table, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from common.errors import RunNotFound
from server.history import tables
from server.history.engine import Database
from server.history.records import (
    DELIVERY_OF,
    EdgeUpdate,
    Event,
    ModelVersion,
    Round,
    Run,
    RunRecord,
    RunSummary,
    Site,
    SiteResult,
)
from server.history.schema import prepare

LATEST = "latest"
_NAMED_IN_ERRORS = 5


def open_history(url: str, create: bool = True) -> "History":
    """Open the history at ``url``; a new or empty database is set up unless ``create`` is False.

    Raises
    ------
    SchemaMismatch
        When its schema is older or newer than this program's; the line names the command to run.
    DatabaseUnreachable
        When it does not answer, or is not there and ``create`` is False.
    StorageFull
        When its folder cannot be written.
    SettingsError
        When ``url`` is not a SQLite or PostgreSQL URL.
    """
    database = Database(url)
    try:
        prepare(database, create)
    except BaseException:
        database.close()
        raise
    return History(database)


class History:
    """All runs of one database.

    Every ``save_*`` writes its row whole under its natural key: a resumed run writes the same
    rows again and changes nothing. Events alone are only ever added. Each call is one short
    transaction, durable when it returns. All of them raise RunNotFound for a run that was not
    saved, StorageFull for a full disk, and DatabaseUnreachable for a database that stays locked
    or no longer answers.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database's connections."""
        self._database.close()

    def save_run(self, run: Run) -> None:
        """Write one run."""
        self._save(tables.runs, run)

    def finish_run(self, run_id: str, state: str, reason: str = "") -> None:
        """Set a run's state (one of `records.RUN_STATES`) and its end to now."""
        self._change(run_id, state=state, reason=reason, finished_at=datetime.now(UTC))

    def set_classes(self, run_id: str, classes: tuple[str, ...]) -> None:
        """Replace a run's class codes, in index order."""
        self._change(run_id, classes=classes)

    def save_site(self, site: Site) -> None:
        """Write one site of a run."""
        self._save(tables.sites, site)

    def save_round(self, round: Round) -> None:
        """Write one round of a run."""
        self._save(tables.rounds, round)

    def save_site_result(self, result: SiteResult) -> None:
        """Write what one site reported for one step of one round."""
        self._save(tables.site_results, result)

    def save_model_version(self, version: ModelVersion) -> None:
        """Write one model version of a run."""
        self._save(tables.model_versions, version)

    def save_edge_update(self, edge_update: EdgeUpdate) -> None:
        """Write what one site's edge client did in one round."""
        self._save(tables.edge_updates, edge_update)

    def clear_edge_updates(self, run_id: str, round: int) -> None:
        """Remove a round's edge updates: the step that reported them is being done again."""
        table = tables.edge_updates
        self._write(delete(table).where(table.c.run_id == run_id, table.c.round == round), run_id)

    def add_event(
        self,
        run_id: str,
        kind: str,
        message: str,
        round: int | None = None,
        site: str | None = None,
    ) -> None:
        """Append one line to a run's trail, at the present moment."""
        row = {
            "run_id": run_id,
            "at": datetime.now(UTC),
            "kind": kind,
            "message": message,
            "round": round,
            "site": site,
        }
        self._write(insert(tables.events).values(row), run_id)

    def list_runs(self) -> list[Run]:
        """Return all runs, newest first."""
        with self._database.reading() as connection:
            rows = connection.execute(_newest_first(select(tables.runs))).mappings()
            return [_run(row) for row in rows]

    def list_summaries(self) -> list[RunSummary]:
        """Return all runs, newest first, with how many sites and finished rounds each has."""
        sites, rounds = tables.sites.c, tables.rounds.c
        of_run = tables.runs.c.run_id
        counts = (
            select(func.count()).where(sites.run_id == of_run).scalar_subquery(),
            select(func.count()).where(sites.run_id == of_run, sites.accepted).scalar_subquery(),
            select(func.count())
            .where(rounds.run_id == of_run, rounds.finished_at.is_not(None))
            .scalar_subquery(),
        )
        query = select(
            tables.runs,
            counts[0].label("sites"),
            counts[1].label("sites_accepted"),
            counts[2].label("rounds_finished"),
        )
        with self._database.reading() as connection:
            return [
                RunSummary(_run(row), row["sites"], row["sites_accepted"], row["rounds_finished"])
                for row in connection.execute(_newest_first(query)).mappings()
            ]

    def has_run(self, run_id: str) -> bool:
        """Whether there is a run of exactly this id."""
        with self._database.reading() as connection:
            return run_id in _run_ids(connection)

    def get_run(self, run_id: str) -> Run:
        """Return the run with this id, with this unique beginning of an id, or the "latest".

        The latest is one with rounds, no delivery. RunNotFound names the runs there are.
        """
        with self._database.reading() as connection:
            return self._find(connection, run_id)

    def load_record(self, run_id: str) -> RunRecord:
        """Return everything known of one run, named as in `get_run`, as of one moment.

        Each list is ordered by its key (round, site, step); events by their number.
        """
        with self._database.reading() as connection:
            run = self._find(connection, run_id)

            def rows(table: Table) -> list[dict[str, Any]]:
                query = select(table).where(table.c.run_id == run.run_id)
                query = query.order_by(*table.primary_key.columns)
                return [dict(row) for row in connection.execute(query).mappings()]

            return RunRecord(
                run=run,
                sites=[Site(**row) for row in rows(tables.sites)],
                rounds=[Round(**row) for row in rows(tables.rounds)],
                site_results=[SiteResult(**row) for row in rows(tables.site_results)],
                versions=[ModelVersion(**row) for row in rows(tables.model_versions)],
                edge_updates=[EdgeUpdate(**row) for row in rows(tables.edge_updates)],
                events=[Event(**row) for row in rows(tables.events)],
            )

    def _save(
        self, table: Table, record: Run | Site | Round | SiteResult | ModelVersion | EdgeUpdate
    ) -> None:
        row = {field.name: getattr(record, field.name) for field in fields(record)}
        # The two dialects spell the same upsert by two classes.
        dialect = sqlite if self._database.kind == "sqlite" else postgresql
        statement = dialect.insert(table).values(row)
        others = {c.name: statement.excluded[c.name] for c in table.c if not c.primary_key}
        key = list(table.primary_key.columns)
        self._write(statement.on_conflict_do_update(index_elements=key, set_=others), record.run_id)

    def _change(self, run_id: str, **values: Any) -> None:
        statement = update(tables.runs).where(tables.runs.c.run_id == run_id).values(**values)
        with self._database.writing() as connection:
            if connection.execute(statement).rowcount == 0:
                raise self._not_found(run_id, _run_ids(connection))

    def _write(self, statement: Any, run_id: str) -> None:
        try:
            with self._database.writing() as connection:
                connection.execute(statement)
        except IntegrityError as error:
            with self._database.reading() as connection:
                known = _run_ids(connection)
            if run_id in known:
                raise
            raise self._not_found(run_id, known) from error

    def _find(self, connection: Connection, name: str) -> Run:
        known = _run_ids(connection)
        if name == LATEST:  # with rounds: of deliveries there are many, named in full
            rounds = ~tables.runs.c.data.startswith(DELIVERY_OF)
            query = _newest_first(select(tables.runs.c.run_id).where(rounds))
            matches = list(connection.scalars(query.limit(1)))
        else:
            # An id may be the beginning of another one.
            matches = [i for i in known if i == name] or [i for i in known if i.startswith(name)]
        if not matches:
            raise self._not_found(name, known)
        if len(matches) > 1:
            raise RunNotFound(
                f"{name!r} begins several runs of {self._database.shown}: {_listed(matches)}; "
                "write more of the id"
            )
        query = select(tables.runs).where(tables.runs.c.run_id == matches[0])
        return _run(connection.execute(query).mappings().one())

    def _not_found(self, name: str, known: list[str]) -> RunNotFound:
        there = f"there are: {_listed(known)}" if known else "there are none yet"
        return RunNotFound(f"no run {name!r} in {self._database.shown}; {there}")


def _newest_first(query: Select[Any]) -> Select[Any]:
    return query.order_by(tables.runs.c.created_at.desc(), tables.runs.c.run_id)


def _run_ids(connection: Connection) -> list[str]:
    return list(connection.scalars(_newest_first(select(tables.runs.c.run_id))))


def _run(row: RowMapping) -> Run:
    values = {field.name: row[field.name] for field in fields(Run)}
    return Run(**values | {"classes": tuple(values["classes"])})


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMED_IN_ERRORS
    listed = ", ".join(names[:_NAMED_IN_ERRORS])
    return f"{listed} and {more} more" if more > 0 else listed
