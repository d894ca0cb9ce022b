"""What the pages but those of a run and of the models say: values for the templates."""

import shlex
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

from common.errors import StateDamaged
from server.certificates import expires
from server.dashboard.in_service import serving
from server.dashboard.live import Badge, UnderWay, runs_under_way, sites_now
from server.dashboard.models_page import VersionRow, version_rows
from server.dashboard.source import Source
from server.dashboard.words import span
from server.history.records import RunSummary
from server.run_control import run_names

Context = dict[str, Any]

PAGE_LINES = 50
_RUNS_SHOWN = 8
_VERSIONS_SHOWN = 5
_RENEW_BEFORE = timedelta(days=30)

RUN_STATES = {
    "running": Badge("running", "busy"),
    "finished": Badge("finished", "ok"),
    "stopped": Badge("stopped", "warn"),
    "failed": Badge("failed", "bad"),
}
WARNINGS = frozenset(
    {
        "does-not-fit",
        "kept-old-version",
        "neurons-refused",
        "quorum-missed",
        "reply-refused",
        "round-discarded",
        "site-left-out",
        "site-missing",
    }
)
"""Kinds of events that tell of something that went another way than it should."""


class RunRow:
    """One line of the list of runs.

    Parameters
    ----------
    summary : RunSummary
    idle : collection of str
        This server's runs that nothing brings further; where the history says that one of them is
        running, its process was lost.
    """

    def __init__(self, summary: RunSummary, idle: Collection[str]) -> None:
        run = summary.run
        self.run = run
        self.badge = RUN_STATES.get(run.state, Badge(run.state, "idle"))
        if run.state == "running" and run.run_id in idle:
            self.badge = Badge("not ended", "warn")
        self.is_delivery = run.is_delivery
        self.sites = f"{summary.sites_accepted} of {summary.sites}"
        self.rounds = "–" if self.is_delivery else str(summary.rounds_finished)
        ended = run.finished_at
        self.took = span((ended - run.created_at).total_seconds()) if ended else "–"


def overview(source: Source) -> Context:
    """The first page: what goes on now, the sites, the newest versions, the latest runs."""
    superlink = source.superlink()
    with source.open() as excerpts:
        runs, problems = runs_under_way(source, excerpts, superlink)
        members = excerpts.members.all()
        promotions = excerpts.members.promotions()
        summaries = excerpts.history.list_summaries()
        serves = serving(excerpts, [s.run for s in summaries], {m.name for m in members})
        versions = excerpts.versions(_VERSIONS_SHOWN)
    sites = sites_now(members, superlink, runs[0] if runs else None)
    rows = _rows(source, summaries, runs)
    ready = [s for s in sites if s.node.text == "online"]
    newest: list[VersionRow] = version_rows(versions, promotions, serves)
    return {
        "page": "overview",
        "superlink": superlink,
        "address": source.folder.settings().address,
        "certificate": _certificate(source),
        "runs": runs,
        "problems": problems,
        "sites": sites,
        "serves": serves,
        "online": len(ready),
        "approved": sum(m.state == "approved" for m in members),
        "versions": newest,
        "latest": rows[:_RUNS_SHOWN],
        "n_runs": len(rows),
        "server": server_option(source),
    }


def runs(source: Source) -> Context:
    """All runs."""
    with source.open() as excerpts:
        summaries = excerpts.history.list_summaries()
        active, _ = runs_under_way(source, excerpts, source.superlink())
    rows = _rows(source, summaries, active)
    return {"page": "runs", "rows": rows, "server": server_option(source)}


def _rows(source: Source, summaries: list[RunSummary], active: list[UnderWay]) -> list[RunRow]:
    idle = set(run_names(source.folder)) - {run.run for run in active}
    return [RunRow(summary, idle) for summary in summaries]


def audit(source: Source, before: int | None) -> Context:
    """One page of the audit trail, newest first."""
    with source.open() as excerpts:
        lines = excerpts.trail(PAGE_LINES + 1, before)
    return {"page": "audit", "before": before, **_paged(lines)}


def events(source: Source, name: str, before: int | None, warnings: bool) -> Context:
    """One page of a run's events, newest first; with ``warnings`` only what went wrong."""
    with source.open() as excerpts:
        run = excerpts.history.get_run(name)
        kinds = WARNINGS if warnings else None
        lines = excerpts.events(run.run_id, PAGE_LINES + 1, before, kinds)
    return {
        "page": "runs",
        "run": run,
        "before": before,
        "only_warnings": warnings,
        "warnings": WARNINGS,
        **_paged(lines),
    }


def _paged(lines: list[Any]) -> Context:
    shown = lines[:PAGE_LINES]
    return {"lines": shown, "older": shown[-1].number if len(lines) > PAGE_LINES else None}


def server_option(source: Source) -> str:
    """What commands are given to reach this server from any folder."""
    return f"--server {shlex.quote(str(source.folder.path))}"


def _certificate(source: Source) -> Context:
    """Until when the server's certificate holds, and whether that is soon."""
    try:
        until = expires(source.folder.tls / "server.crt")
    except StateDamaged as error:
        return {"until": None, "soon": True, "problem": str(error)}
    soon = until - datetime.now(UTC) < _RENEW_BEFORE
    return {"until": until, "soon": soon, "problem": ""}
