"""Runs that are under way, and how each site stands just now."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from common.errors import FedqanaError
from common.keys import fingerprint
from server.checkpoint import STEPS
from server.dashboard.source import Source, Superlink
from server.dashboard.words import about, ago, span
from server.history.excerpts import Excerpts
from server.history.records import Member, RunRecord, Site, SiteResult
from server.run_control import Control, read_control, run_names
from server.server_settings import ServerFolder
from server.step_times import steps_of

_ORDER = {
    "handshake": 0, "train": 1, "balance": 2, "evaluate": 3, "deploy": 4, "share": 5, "final": 6
}  # fmt: skip


@dataclass(frozen=True)
class Badge:
    """A word with a colour: "ok", "busy", "warn", "bad" or "idle"."""

    text: str
    kind: str


@dataclass(frozen=True)
class Step:
    """One step of a round; ``state`` is "done", "now" or "" for one to come."""

    name: str
    state: str


@dataclass(frozen=True)
class UnderWay:
    """A run that is wanted and has not ended.

    ``percent`` is None before its first word; ``waiting`` names the sites that have not answered
    the step yet, ``left`` says how long they still have.
    """

    run: str
    data: str
    badge: Badge
    reason: str
    where: str = ""
    message: str = ""
    heard: str = ""
    percent: int | None = None
    steps: tuple[Step, ...] = ()
    waiting: tuple[str, ...] = ()
    asked: int = 0
    left: str = ""
    to_the_end: str = ""
    accuracy: float | None = None
    record: RunRecord | None = field(default=None, repr=False)


@dataclass(frozen=True)
class SiteNow:
    """One line of the table of sites; ``detail`` and ``hint`` may be empty."""

    name: str
    state: Badge
    node: Badge
    heard_at: datetime | None
    heard: str
    part: Badge
    detail: str
    hint: str
    command: str


def runs_under_way(
    source: Source, excerpts: Excerpts, superlink: Superlink
) -> tuple[list[UnderWay], list[str]]:
    """Runs that go on or wait to go on, newest first; and what of them cannot be read."""
    found, problems = [], []
    for name in run_names(source.folder)[::-1]:
        try:
            control = read_control(source.folder, name)
            if control.wanted == "run":
                record = _record(source, excerpts, name)
                if record is None or record.run.state != "finished":
                    found.append(_under_way(source.folder, name, control, record, superlink))
        except FedqanaError as error:
            problems.append(str(error))
    return found, problems


def _record(source: Source, excerpts: Excerpts, name: str) -> RunRecord | None:
    return source.record(excerpts, name).record if excerpts.history.has_run(name) else None


def _under_way(
    folder: ServerFolder,
    name: str,
    control: Control,
    record: RunRecord | None,
    superlink: Superlink,
) -> UnderWay:
    alive = bool(superlink.under_way.intersection(control.flower_runs[-1:]))
    badge, reason = _state(record, alive, superlink.answers)
    data = record.run.data if record else ""
    said = _progress(folder, name)
    if said is None:
        return UnderWay(name, data, badge, reason, record=record)
    number, total, step = int(said["round"]), int(said["rounds"]), str(said["step"])
    delivery = said["phase"] == "delivery"
    steps = () if delivery else _steps(step, bool(said["done"]))
    done = sum(s.state == "done" for s in steps) / max(1, len(steps))
    age = max(0.0, (datetime.now(UTC) - datetime.fromisoformat(said["at"])).total_seconds())
    waiting = tuple(str(site) for site in said["waiting"]) if alive else ()
    left = None if said["left"] is None else max(0.0, float(said["left"]) - age)
    minutes = _minutes_left(record, total) if alive else None
    where = "final test" if step == "final" else f"round {number} of {total} ({said['phase']})"
    return UnderWay(
        run=name,
        data=data,
        badge=badge,
        reason=reason,
        where="delivery" if delivery else where,
        message=str(said["message"]),
        heard=ago(datetime.fromisoformat(said["at"])),
        percent=None if delivery else _percent(number - 1 + done, total, said),
        steps=steps,
        waiting=waiting,
        asked=sum(s.accepted for s in record.sites) if record else len(waiting),
        left=span(left) if waiting and left is not None else "",
        to_the_end=about(minutes) if minutes is not None else "",
        accuracy=_accuracy(record),
        record=record,
    )


def _state(record: RunRecord | None, alive: bool, answers: bool) -> tuple[Badge, str]:
    """How a run that is wanted stands, in a word and why."""
    if record is None:
        return Badge("starting", "busy"), "it has not reached the sites yet"
    if record.run.state == "running":
        if not answers:
            return Badge("unknown", "warn"), "the server does not answer"
        if not alive:
            return Badge("interrupted", "warn"), "its process ended; it goes on by itself"
        return Badge("running", "busy"), ""
    return Badge("waiting", "warn"), f"{record.run.reason or 'stopped'}; it goes on by itself"


def _progress(folder: ServerFolder, name: str) -> dict[str, Any] | None:
    """What a run last said of itself; None before its first word, or where it is half there."""
    try:
        said = json.loads((folder.runs / name / "progress.json").read_text())
    except (OSError, ValueError):
        return None
    wanted = {"round", "rounds", "phase", "step", "message", "done", "waiting", "left", "at"}
    return said if isinstance(said, dict) and wanted <= said.keys() else None


def _percent(rounds: float, total: int, said: dict[str, Any]) -> int:
    """How much is done; the last hundredth is the final test."""
    ended = said["step"] == "done" or (said["step"] == "final" and said["done"])
    return 100 if ended else min(99, round(100 * rounds / max(1, total)))


def _steps(step: str, done: bool) -> tuple[Step, ...]:
    if step not in STEPS:  # the handshake, before the first one, or the final test, after the last
        return tuple(Step(name, "done" if step in ("final", "done") else "") for name in STEPS)
    position = STEPS.index(step)
    return tuple(
        Step(
            name,
            "done" if k < position or (k == position and done) else "now" if k == position else "",
        )
        for k, name in enumerate(STEPS)
    )


def _minutes_left(record: RunRecord | None, total: int) -> float | None:
    """What the finished rounds' mean time makes of the rounds to come; None before one has."""
    finished = [r for r in record.rounds if r.finished_at is not None] if record else []
    if record is None or not finished:
        return None
    mean = sum(sum(steps_of(r.seconds).values()) for r in finished) / len(finished)
    started = next((r.started_at for r in record.rounds if r.finished_at is None), None)
    spent = (datetime.now(UTC) - started).total_seconds() if started else 0.0
    return max(0.0, (total - len(finished)) * mean - min(spent, mean)) / 60


def _accuracy(record: RunRecord | None) -> float | None:
    metrics = record.versions[-1].metrics if record and record.versions else {}
    value = metrics.get("validation", {}).get("balanced_accuracy", {}).get("value")
    return float(value) if isinstance(value, int | float) else None


def sites_now(members: list[Member], superlink: Superlink, run: UnderWay | None) -> list[SiteNow]:
    """Every site: membership, connection, and its part in the run under way.

    Those that wait for the coordinator come first, those that are out last.
    """
    ordered = sorted(members, key=lambda m: (_ORDER_OF_STATES.get(m.state, 9), m.name))
    return [_site_now(member, superlink, run) for member in ordered]


def _site_now(member: Member, superlink: Superlink, run: UnderWay | None) -> SiteNow:
    part, detail = _part(member, run)
    hint, command = _hint(member)
    return SiteNow(
        name=member.name,
        state=_STATES.get(member.state, Badge(member.state, "idle")),
        node=_node(member, superlink),
        heard_at=member.heard_at,
        heard=ago(member.heard_at),
        part=part,
        detail=detail,
        hint=hint,
        command=command,
    )


_ORDER_OF_STATES = {"pending": 0, "approved": 1, "invited": 2, "revoked": 3}
_STATES = {
    "invited": Badge("invited", "idle"),
    "pending": Badge("waits for approval", "warn"),
    "approved": Badge("takes part", "ok"),
    "revoked": Badge("revoked", "bad"),
}
_NODES = {
    "online": Badge("online", "ok"),
    "offline": Badge("offline", "bad"),
    "registered": Badge("never connected", "warn"),
    "unregistered": Badge("refused", "bad"),
}


def _node(member: Member, superlink: Superlink) -> Badge:
    if member.state != "approved":
        return Badge("–", "none")
    if not superlink.answers:
        return Badge("unknown", "idle")
    status = superlink.nodes.get(member.node_id, "not known to the server")
    return _NODES.get(status, Badge(status, "warn"))


def _hint(member: Member) -> tuple[str, str]:
    """What there is to do about a site, and with which command."""
    if member.state == "pending":
        return f"compare its key {_key(member)}, then", f"fedqana site approve {member.name}"
    if member.state == "invited":
        left = (member.expires_at - datetime.now(UTC)).total_seconds()
        if left <= 0:
            return "its invitation expired:", f"fedqana site invite {member.name}"
        return f"its invitation holds for another {span(left)}", ""
    return "", ""


def _key(member: Member) -> str:
    try:
        return fingerprint(member.public_key)
    except ValueError:
        return "(not readable)"


def _part(member: Member, run: UnderWay | None) -> tuple[Badge, str]:
    """A site's part in the run under way."""
    if run is None or run.record is None or member.state != "approved":
        return Badge("–", "none"), ""
    site = next((s for s in run.record.sites if s.name == member.name), None)
    last = _last(run.record, member.name)
    if member.name in run.waiting:
        others = len(run.waiting) < run.asked
        left = f"{run.left} left" if run.left else ""
        return Badge("not answered yet", "warn" if others else "busy"), left
    if site is None:
        return Badge("not in it", "idle"), ""
    if not site.accepted:
        return Badge("left out", "bad"), site.reason
    return _said(site, last)


def _said(site: Site, last: SiteResult | None) -> tuple[Badge, str]:
    if last is None:
        return Badge("in", "ok"), f"{site.n_train:,} training cases"
    where = f"{last.step}, round {last.round}"
    if not last.accepted:
        return Badge("missed", "bad"), f"{where}: {last.reason}"
    return Badge("answered", "ok"), f"{where}, {last.seconds:.1f} s"


def _last(record: RunRecord, site: str) -> SiteResult | None:
    own = [r for r in record.site_results if r.site == site]
    return max(own, key=lambda r: (r.round, _ORDER.get(r.step, 0)), default=None)
