"""Who may take part: invitations, keys, approvals, and the trail of what was done.

Beside the history of runs in the same database; the enrolment page, the commands and the round
loop read and write it from several processes.
"""

import hashlib
import hmac
import secrets
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection, insert, select, update

from common.errors import EnrolmentRefused, SettingsError
from server.history import tables
from server.history.engine import Database
from server.history.records import AuditLine, Member, Promotion
from server.history.schema import prepare

CODE_BYTES = 20


def open_membership(url: str, create: bool = True) -> "Membership":
    """Open the members of the database at ``url``; ``create`` and errors as `open_history`."""
    database = Database(url)
    try:
        prepare(database, create)
    except BaseException:
        database.close()
        raise
    return Membership(database)


class Membership:
    """The sites of one coordinator; every change and its line in the trail are one transaction."""

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

    # -- members ------------------------------------------------------------------------------

    def invite(self, name: str, hours: float) -> tuple[Member, str]:
        """A new invitation and its one-time code, which is kept as a hash only.

        A pending or revoked site may be invited anew, with a new key to come. SettingsError for an
        approved one.
        """
        code = secrets.token_urlsafe(CODE_BYTES)
        now = datetime.now(UTC)
        with self._database.writing() as connection:
            known = _member(connection, name, for_change=True)
            if known is not None and known.state == "approved":
                raise SettingsError(
                    f"site {name} takes part already; revoke it first "
                    f"('fedqana site revoke {name}') to give it a new key"
                )
            member = Member(
                name=name,
                state="invited",
                code_sha256=_hash(code),
                expires_at=now + timedelta(hours=hours),
                public_key="",
                node_id="",
                software={},
                invited_at=now,
            )
            _put(connection, member, known is not None)
            _note(connection, "coordinator", "site invited", name, f"for {hours:g} hours")
        return member, code

    def join(self, name: str, code: str, public_key: str, software: dict[str, str]) -> Member:
        """Take a site's key in return for its one-time code; it is pending then.

        Sent again with the same key, e.g. because the reply was lost, it is no second use.
        EnrolmentRefused for anything else: unknown, used, expired.
        """
        now = datetime.now(UTC)
        with self._database.writing() as connection:
            known = _member(connection, name, for_change=True)
            if known is None or known.state == "revoked":
                raise EnrolmentRefused(
                    f"there is no invitation for {name!r}; ask the coordinator for an enrolment "
                    "file"
                )
            used = known.state in ("pending", "approved")
            fits = hmac.compare_digest(known.code_sha256, _hash(code))
            if not fits or (used and known.public_key != public_key):
                raise EnrolmentRefused(
                    f"the one-time code for {name!r} is wrong or was used already; ask the "
                    "coordinator for a new enrolment file"
                )
            if used:
                return known
            if now > known.expires_at:
                raise EnrolmentRefused(
                    f"the invitation for {name!r} expired at {known.expires_at:%Y-%m-%d %H:%M} "
                    "UTC; ask the coordinator for a new enrolment file"
                )
            if _owner(connection, public_key) is not None:
                raise EnrolmentRefused(
                    "this key belongs to another site; join with a key of its own"
                )
            member = replace(
                known, state="pending", public_key=public_key, joined_at=now, software=software
            )
            _put(connection, member, True)
            _note(connection, f"site {name}", "site joined", name, "waits for approval")
        return member

    def approve(self, name: str, node_id: str, public_key: str) -> Member:
        """Let a pending site take part as the node that its key was registered as.

        SettingsError where it is not pending with this key any more.
        """
        now = datetime.now(UTC)
        with self._database.writing() as connection:
            known = _required(connection, name, for_change=True)
            if (known.state, known.public_key) != ("pending", public_key):
                raise SettingsError(
                    f"site {name} has changed meanwhile and is {known.state}; see 'fedqana site "
                    "list'"
                )
            member = replace(known, state="approved", node_id=node_id, approved_at=now)
            _put(connection, member, True)
            _note(connection, "coordinator", "site approved", name, f"node {node_id}")
        return member

    def revoke(self, name: str) -> Member:
        """End a site's membership; its name stays in the list."""
        now = datetime.now(UTC)
        with self._database.writing() as connection:
            known = _required(connection, name, for_change=True)
            member = replace(known, state="revoked", code_sha256="", revoked_at=now)
            _put(connection, member, True)
            _note(connection, "coordinator", "site revoked", name, f"was {known.state}")
        return member

    def heard(self, name: str) -> None:
        """Note that a site was heard just now; unknown names are passed over."""
        table = tables.members
        statement = update(table).where(table.c.name == name).values(heard_at=datetime.now(UTC))
        with self._database.writing() as connection:
            connection.execute(statement)

    def get(self, name: str) -> Member:
        """One member; SettingsError names those there are."""
        with self._database.reading() as connection:
            return _required(connection, name)

    def find(self, name: str) -> Member | None:
        """One member or None."""
        with self._database.reading() as connection:
            return _member(connection, name)

    def all(self) -> list[Member]:
        """All members by name."""
        query = select(tables.members).order_by(tables.members.c.name)
        with self._database.reading() as connection:
            return [Member(**row) for row in connection.execute(query).mappings()]

    def names_by_node(self) -> dict[str, str]:
        """Names of the approved sites by Flower's node id."""
        return {m.node_id: m.name for m in self.all() if m.state == "approved"}

    # -- trail and promotions -----------------------------------------------------------------

    def note(self, actor: str, action: str, subject: str, detail: str = "") -> None:
        """Append a line to the trail."""
        with self._database.writing() as connection:
            _note(connection, actor, action, subject, detail)

    def trail(self, limit: int = 200) -> list[AuditLine]:
        """The newest lines, oldest of them first."""
        query = select(tables.audit).order_by(tables.audit.c.number.desc()).limit(limit)
        with self._database.reading() as connection:
            rows = [AuditLine(**row) for row in connection.execute(query).mappings()]
        return rows[::-1]

    def promote(self, run_id: str, version: int, action: str = "promote") -> None:
        """Note that a version was put into service."""
        values = {"at": datetime.now(UTC), "run_id": run_id, "version": version, "action": action}
        with self._database.writing() as connection:
            connection.execute(insert(tables.promotions).values(values))
            _note(connection, "coordinator", f"model {action}", f"{run_id}:{version}", "")

    def promotions(self) -> list[Promotion]:
        """All promotions, oldest first."""
        query = select(tables.promotions).order_by(tables.promotions.c.number)
        with self._database.reading() as connection:
            return [Promotion(**row) for row in connection.execute(query).mappings()]


def _hash(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()


def _member(connection: Connection, name: str, for_change: bool = False) -> Member | None:
    """A member; ``for_change`` keeps others from changing it within this transaction."""
    query = select(tables.members).where(tables.members.c.name == name)
    if for_change:  # SQLite has locked all of the database already
        query = query.with_for_update()
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else Member(**row)


def _required(connection: Connection, name: str, for_change: bool = False) -> Member:
    found = _member(connection, name, for_change)
    if found is None:
        names = connection.scalars(select(tables.members.c.name).order_by(tables.members.c.name))
        known = ", ".join(names) or "none"
        raise SettingsError(f"there is no site {name!r}; invited so far: {known}")
    return found


def _owner(connection: Connection, public_key: str) -> str | None:
    query = select(tables.members.c.name).where(tables.members.c.public_key == public_key)
    return connection.scalars(query).first()


def _put(connection: Connection, member: Member, known: bool) -> None:
    values: dict[str, Any] = {f.name: getattr(member, f.name) for f in fields(member)}
    table = tables.members
    if known:
        connection.execute(update(table).where(table.c.name == member.name).values(values))
    else:
        connection.execute(insert(table).values(values))


def _note(connection: Connection, actor: str, action: str, subject: str, detail: str) -> None:
    values = {
        "at": datetime.now(UTC),
        "actor": actor,
        "action": action,
        "subject": subject,
        "detail": detail,
    }
    connection.execute(insert(tables.audit).values(values))
