"""One database: how it is opened, named to people, locked, and how its failures are told."""

import re
import shlex
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote_plus

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError

from common.errors import (
    DatabaseUnreachable,
    FedqanaError,
    SettingsError,
    StateDamaged,
    StorageFull,
)
from common.files import writing_to

CONNECT_SECONDS = 5
LOCK_SECONDS = 10
_LOOK_AGAIN_SECONDS = 0.02
HIDDEN = "***"

Trouble = Literal["full", "read-only", "damaged", "locked", "unreachable"]

# Every parameter here can be set by the URL's query too, which then wins.
_CONNECT: dict[str, dict[str, Any]] = {
    "sqlite": {"timeout": LOCK_SECONDS},
    "postgresql": {
        "connect_timeout": CONNECT_SECONDS,
        "options": f"-c lock_timeout={LOCK_SECONDS}s",
        # A server that vanished without a word is noticed, instead of waited for without end.
        "tcp_user_timeout": 30_000,
    },
}


def default_url(out: Path) -> str:
    """Return the URL of the SQLite history in the output folder ``out``."""
    return URL.create("sqlite", database=str(out / "history.db")).render_as_string()


class Database:
    """A connection pool on one database URL.

    Parameters
    ----------
    url : str
        ``sqlite:///file`` or ``postgresql+psycopg://user:password@host/name``.

    Raises
    ------
    SettingsError
        When the URL cannot be parsed, names another kind of database, or its driver is missing.
    """

    def __init__(self, url: str) -> None:
        parsed = _parse(url)
        self.kind = parsed.get_backend_name()
        self.shown = _without_password(parsed)
        self.file = _sqlite_file(parsed)
        self._secrets = _secrets(parsed)
        arguments = {k: v for k, v in _CONNECT[self.kind].items() if k not in parsed.query}
        try:
            # A pooled connection may have died since: the ping replaces it before it is used.
            engine = create_engine(parsed, connect_args=arguments, pool_pre_ping=True)
        except (ImportError, ArgumentError) as error:
            raise SettingsError(
                f"no driver for {self.shown}: install it with pip install 'fedqana[postgresql]' "
                "and write the URL as postgresql+psycopg://..."
            ) from error
        self._engine = engine
        if self.kind == "sqlite":
            event.listen(engine, "connect", _set_up_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
            self._writing: Engine = engine.execution_options(sqlite_begin="BEGIN IMMEDIATE")
            self._reading: Engine = engine.execution_options(sqlite_begin="BEGIN")
        else:
            self._writing = engine
            self._reading = engine.execution_options(isolation_level="REPEATABLE READ")

    def upgrade_command(self) -> str:
        """Return the shell command that upgrades this database; a password shows as ``***``."""
        return f"fedqana database upgrade --database {shlex.quote(self.shown)}"

    def exists(self) -> bool:
        """Whether there is a database to connect to; PostgreSQL answers that by itself."""
        return self.file is None or self.file.exists()

    def make_folder(self) -> None:
        """Create the folder of a SQLite file; StorageFull where that is refused."""
        if self.file is not None:
            with writing_to(self.file.parent):
                self.file.parent.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One short transaction that writes: committed at the end, undone by any error."""
        with self._telling(), self._writing.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One transaction that reads: all its queries see the same moment.

        What cannot be turned into records within the block is StateDamaged: this program did not
        write it.
        """
        with self._telling():
            try:
                with self._reading.begin() as connection:
                    yield connection
            except (ValueError, TypeError, LookupError) as error:
                raise self._damaged(f"a value is not readable ({error})") from error

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            told = self._tell(error)
            if told is None:
                raise
            raise told from error

    def _damaged(self, why: str) -> StateDamaged:
        return StateDamaged(
            f"the history {self.shown} is damaged: {why}; restore a copy of it or choose another "
            "database with --database"
        )

    def _tell(self, error: DBAPIError) -> FedqanaError | None:
        """Say a driver's error in one line, or None where it is a bug of ours."""
        said = " ".join(str(error.orig).split())
        for secret in self._secrets:
            # A short one only as a word of its own: within others it would be told by its gaps.
            pattern = re.escape(secret) if len(secret) > 3 else rf"\b{re.escape(secret)}\b"
            said = re.sub(pattern, HIDDEN, said)
        if self.kind == "sqlite":
            name = getattr(error.orig, "sqlite_errorname", "")
            # The driver, not SQLite, fails on text that is not UTF-8 and gives no error name.
            undecodable = not name and said.startswith("Could not decode")
            trouble = "damaged" if undecodable else _sqlite_trouble(name)
        else:
            no_answer = isinstance(error, OperationalError | InterfaceError)
            trouble = _postgresql_trouble(getattr(error.orig, "sqlstate", None), no_answer)
        match trouble:
            case "full":
                return StorageFull(
                    f"cannot write the history {self.shown}: its disk is full; free some space, "
                    "then resume (nothing saved before is lost)"
                )
            case "read-only":
                return StorageFull(
                    f"cannot write the history {self.shown}: {said}; make it writable or choose "
                    "another database with --database"
                )
            case "damaged":
                return self._damaged(said)
            case "locked":
                return DatabaseUnreachable(
                    f"the history {self.shown} stayed locked by another process: {said}; end that "
                    "process or wait for it, then try again"
                )
            case "unreachable":
                return DatabaseUnreachable(
                    f"cannot reach the history {self.shown}: {said}; check --database or "
                    "FEDQANA_DATABASE, and that the server runs"
                )
        return None


def _sqlite_trouble(name: str) -> Trouble | None:
    # Names: https://www.sqlite.org/rescode.html, extended ones as SQLITE_READONLY_DIRECTORY.
    match name.removeprefix("SQLITE_").split("_")[0]:
        case "FULL":
            return "full"
        case "READONLY":
            return "read-only"
        case "CORRUPT" | "NOTADB":
            return "damaged"
        case "BUSY" | "LOCKED" | "PROTOCOL":
            return "locked"
        case "CANTOPEN" | "IOERR" | "PERM" | "AUTH":
            return "unreachable"
    return None


def _postgresql_trouble(code: str | None, no_answer: bool) -> Trouble | None:
    # Codes: https://www.postgresql.org/docs/current/errcodes-appendix.html
    if code is None:
        return "unreachable" if no_answer else None
    if code == "53100":
        return "full"
    if code in ("25006", "42501"):  # a read-only server, no permission
        return "read-only"
    if code in ("55P03", "40P01"):  # the lock timeout, a deadlock
        return "locked"
    if code.startswith("XX"):  # XX001, XX002: corrupted data or index
        return "damaged"
    # Connection, authentication, no such database, resources, shut down, the server's disk.
    if code.startswith(("08", "28", "3D", "53", "57P", "58")):
        return "unreachable"
    return None


def _set_up_sqlite(connection: sqlite3.Connection, _: object) -> None:
    # The driver would begin a transaction before a write only, so neither a snapshot of several
    # queries nor a migration would be one transaction: _begin_sqlite begins them all.
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")
    _use_write_ahead_log(connection)


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Let readers and a writer not wait for each other; the mode stays with the file.

    Changing it needs the whole file, hence only where it is another one. Two processes that
    change it at once would each wait for the other, so SQLite refuses one of them without
    calling its busy handler (https://www.sqlite.org/c3ref/busy_handler.html): that one looks
    again, as the other has changed the mode by then or lets go of the file.
    """
    give_up = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] == "delete":
                connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            locked = _sqlite_trouble(error.sqlite_errorname) == "locked"
            if not locked or time.monotonic() > give_up:
                raise
        time.sleep(_LOOK_AGAIN_SECONDS)


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that will write takes the lock at once: one that reads first and writes then
    # is refused, without waiting, when another process wrote in between.
    connection.exec_driver_sql(connection.get_execution_options()["sqlite_begin"])


def _parse(url: str) -> URL:
    # What is not understood is not echoed: it may hold a password.
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise SettingsError(
            "--database or FEDQANA_DATABASE is not a database URL; write "
            "sqlite:///path/to/history.db or postgresql+psycopg://user:password@host/name"
        ) from None
    if parsed.get_backend_name() not in _CONNECT:
        raise SettingsError(
            f"the history cannot be kept in {parsed.get_backend_name()!r}; use sqlite:///file or "
            "postgresql+psycopg://user:password@host/name"
        )
    return parsed


def _is_secret(key: str) -> bool:
    return "password" in key.lower()


def _without_password(url: URL) -> str:
    query = {key: HIDDEN if _is_secret(key) else value for key, value in url.query.items()}
    shown = url.set(query=query).render_as_string(hide_password=True)
    return shown.replace(quote_plus(HIDDEN), HIDDEN)


def _secrets(url: URL) -> list[str]:
    values = [url.password, *(value for key, value in url.query.items() if _is_secret(key))]
    return [str(value) for value in values if value]


def _sqlite_file(url: URL) -> Path | None:
    if url.get_backend_name() != "sqlite":
        return None
    if not url.database or url.database == ":memory:":
        raise SettingsError(
            "a history in memory would be lost with the process; write sqlite:///path/to/history.db"
        )
    return Path(url.database)
