"""How a deployed run stands, put together from history, progress file and SuperLink."""

import time
from datetime import UTC, datetime
from typing import Any

import psutil

from common.errors import ServiceUnavailable
from server.deployed_run import read_progress
from server.flower_control import flower_control
from server.history.records import RunRecord, SiteResult
from server.run_control import Control, find_run_name, is_alive, read_control
from server.server_database import open_members, open_runs
from server.server_settings import ServerFolder
from server.step_times import steps_of


def run_status(folder: ServerFolder, name: str) -> dict[str, Any]:
    """A run as plain JSON values.

    ``state`` is the history's, or "starting", or "interrupted" where it says running but no
    process is. ``sites`` has for each site whether its node is online, what it reported last and
    how much it sent in the whole run. ``left_minutes`` is what the finished rounds' mean time
    makes of the rounds to come; None before the first has finished.
    """
    run = find_run_name(folder, name)
    control = read_control(folder, run)
    try:
        with flower_control(folder) as flower:
            alive = is_alive(control, flower)
            nodes = {node.node_id: node.status for node in flower.nodes()}
        superlink = True
    except ServiceUnavailable:
        nodes, alive, superlink = {}, False, False
    with open_members(folder) as members:
        node_of = {m.name: m for m in members.all()}
    with open_runs(folder) as history:
        record = history.load_record(run) if history.has_run(run) else None
    state, reason = _state(record, alive, superlink, control)
    progress = read_progress(folder, run)
    if progress and not psutil.pid_exists(int(progress.get("pid", 0))):
        progress = {**progress, "waiting": [], "left": None}  # of the process before
    names = {m.name for m in node_of.values() if m.state == "approved"}
    if record is not None:
        names |= {s.name for s in record.sites}
    rows = [_site(name, record, node_of, nodes) for name in sorted(names)]
    return {
        "run": run,
        "state": state,
        "reason": reason,
        "ended": state == "finished" or (state != "running" and control.wanted == "stop"),
        "progress": progress,
        "left_minutes": _left(record, progress),
        "balanced_accuracy": _accuracy(record),
        "sites": rows,
    }


def _state(
    record: RunRecord | None, alive: bool, superlink: bool, control: Control
) -> tuple[str, str]:
    wanted = control.wanted
    if record is None:
        return ("starting" if wanted == "run" else "stopped"), ""
    state, reason = record.run.state, record.run.reason
    if state == "running" and not superlink:
        return "unknown", "the server does not answer; start it with 'fedqana server start'"
    if state == "running" and not alive:
        onward = "it goes on by itself" if wanted == "run" else "go on with 'fedqana rounds resume'"
        return "interrupted", f"its process ended; {onward}"
    if state in ("stopped", "failed") and alive and wanted == "run":
        return "starting", "its process looks for the sites"
    if state in ("stopped", "failed") and wanted == "run":
        when = ""
        if control.not_before > time.time():
            moment = datetime.fromtimestamp(control.not_before, UTC)
            when = f" at {moment:%Y-%m-%d %H:%M} UTC"
        return "waiting", f"{reason}; it goes on by itself{when}"
    return state, reason


def _site(
    name: str, record: RunRecord | None, members: dict[str, Any], nodes: dict[str, str]
) -> dict[str, Any]:
    results = [] if record is None else [r for r in record.site_results if r.site == name]
    known = None if record is None else next((s for s in record.sites if s.name == name), None)
    last: SiteResult | None = results[-1] if results else None
    if results:
        last = max(results, key=lambda r: (r.round, _ORDER.get(r.step, 0)))
    member = members.get(name)
    node = "unknown" if member is None else nodes.get(member.node_id, member.state)
    node = {"registered": "offline", "unregistered": "revoked"}.get(node, node)  # Flower's words
    return {
        "site": name,
        "node": node,
        "accepted": known is not None and known.accepted,
        "cases": 0 if known is None else known.n_train,
        "heard_at": member.heard_at.isoformat() if member and member.heard_at else None,
        "step": last.step if last else "",
        "round": last.round if last else 0,
        "seconds": last.seconds if last else 0.0,
        "bytes_up": sum(r.bytes_up for r in results),
        "bytes_down": sum(r.bytes_down for r in results),
        "reason": (last.reason if last else "") or ("" if known is None else known.reason),
        "said": _said(last, record),
    }


_ORDER = {"train": 1, "balance": 2, "evaluate": 3, "deploy": 4, "share": 5, "final": 6}


def _said(result: SiteResult | None, record: RunRecord | None) -> str:
    if result is None or record is None or not result.accepted:
        return ""
    if result.step in ("deploy", "share"):
        for update in record.edge_updates[::-1]:
            if (update.round, update.site) == (result.round, result.site):
                switched = "switched" if update.switched else f"kept its version: {update.reason}"
                switched += ", fine-tuned" if update.switched and update.fine_tuned else ""
                taught = f", {update.cases_learned} new cases" if update.cases_learned else ""
                return switched + taught
    if result.step == "train":
        return f"loss {result.result['loss']:.3f} over {result.result['examples']} cases"
    return "done"


def _accuracy(record: RunRecord | None) -> float | None:
    if record is None or not record.versions:
        return None
    validation = record.versions[-1].metrics.get("validation", {})
    value = validation.get("balanced_accuracy", {}).get("value")
    return None if value is None else float(value)


def _left(record: RunRecord | None, progress: dict[str, Any] | None) -> float | None:
    if record is None or progress is None or record.run.state != "running":
        return None
    done = [r for r in record.rounds if r.finished_at is not None]
    if not done:
        return None
    mean = sum(sum(steps_of(r.seconds).values()) for r in done) / len(done)
    to_come = progress["rounds"] - len(done)
    started = next((r.started_at for r in record.rounds if r.finished_at is None), None)
    spent = (datetime.now(UTC) - started).total_seconds() if started else 0.0
    return float(max(0.0, to_come * mean - min(spent, mean)) / 60)
