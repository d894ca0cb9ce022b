"""Starting, stopping and resuming runs of a deployed server, and keeping them going.

runs/RUN/control.json   what the coordinator wants of the run, and Flower's ids for its processes
runs/RUN/pid            of the process, once it runs
"""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from common.errors import (
    FedqanaError,
    RunMismatch,
    RunNotFound,
    ServiceUnavailable,
    StateDamaged,
)
from common.file_lock import file_lock
from common.files import write_atomically
from server.delivery_order import DELIVERY
from server.flower_control import FlowerControl, flower_control
from server.plan import RunPlan
from server.run_folder import PLAN, RunFolder, StoredPlan
from server.server_database import open_members, open_runs
from server.server_settings import ServerFolder

log = logging.getLogger("fedqana.runs")

CONTROL = "control.json"
PID = "pid"
PROGRAM = "flwr-serverapp"
_FIRST_PAUSE = 10.0
_LONGEST_PAUSE = 1800.0
_LOOK_SECONDS = 3.0
_PATIENCE = 30.0
_LATEST = 3
"""Processes of a run that are asked after: in months it may have been resumed a hundred times."""
_HEARD_EVERY = timedelta(minutes=1)


class Control(BaseModel):
    """What is wanted of a run.

    ``attempts`` counts the resumes since its last finished step, ``position`` is that step;
    ``not_before`` is when the next one may be, in seconds since 1970.
    """

    model_config = ConfigDict(extra="forbid")

    wanted: Literal["run", "stop"] = "run"
    flower_runs: list[str] = []
    attempts: int = 0
    position: str = ""
    not_before: float = 0.0


@dataclass(frozen=True)
class RunState:
    """How a run stands: its state in the history, whether its process lives, what is wanted."""

    run: str
    state: str
    reason: str
    alive: bool
    wanted: str


def read_control(folder: ServerFolder, run: str) -> Control:
    """A run's control file; RunNotFound where there is no such run."""
    path = folder.runs / run / CONTROL
    try:
        return Control.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        known = ", ".join(run_names(folder)) or "none"
        raise RunNotFound(f"there is no run {run!r} at this server; runs here: {known}") from error
    except ValidationError as error:
        raise StateDamaged(f"{path} is not readable; restore it from a backup") from error


def write_control(folder: ServerFolder, run: str, control: Control) -> None:
    """Replace a run's control file."""
    write_atomically(folder.runs / run / CONTROL, control.model_dump_json(indent=1).encode())


def run_names(folder: ServerFolder) -> list[str]:
    """Names of this server's runs, oldest first."""
    found = [path.parent for path in folder.runs.glob(f"*/{CONTROL}")]
    return [path.name for path in sorted(found, key=lambda p: (_begun(p), p.name))]


def _begun(run_folder: Path) -> float:
    try:
        return (run_folder / PLAN).stat().st_mtime
    except OSError:
        return 0.0


def find_run_name(folder: ServerFolder, name: str) -> str:
    """A run by name, unique prefix or "latest"; RunNotFound says which there are.

    The latest is the newest one that is to go on, else the newest; one with rounds, as a delivery
    of a version is named in full.
    """
    folder.settings()
    names = run_names(folder)
    if not names:
        raise RunNotFound("no run yet at this server; start one with 'fedqana rounds start'")
    matching = [n for n in names if n == name] or [n for n in names if n.startswith(name)]
    if name == "latest":
        rounds = [n for n in names if not (folder.runs / n / DELIVERY).exists()]
        matching = ([n for n in rounds if read_control(folder, n).wanted == "run"] or rounds)[-1:]
    if len(matching) != 1:
        raise RunNotFound(
            f"no run {name!r} at this server; runs here: {', '.join(names) or 'none'}"
        )
    return matching[0]


@contextmanager
def one_at_a_time(folder: ServerFolder) -> Iterator[None]:
    """One process at a time decides on runs: commands and the server, which keeps them going."""
    busy = "another command is changing runs or sites of this server; try again"
    with file_lock(folder.path / "control.lock", _PATIENCE, busy):
        yield


def launch_new(
    folder: ServerFolder,
    plan: RunPlan,
    data: str,
    prepare: Callable[[Path], None] = lambda path: None,
) -> None:
    """Write a new run's folder, let ``prepare`` add to it, and start it.

    Raises RunMismatch where the name is taken or another run is under way, and
    ServiceUnavailable where the SuperLink does not answer; then nothing is left behind.
    """
    path = folder.runs / plan.run
    with one_at_a_time(folder), flower_control(folder) as control:
        if path.exists():
            raise RunMismatch(f"there is a run {plan.run} already; choose another --run name")
        _require_free(folder, control, plan.run)
        try:
            RunFolder(path).create(StoredPlan(plan=plan, data=data))
            prepare(path)
            _launch(folder, control, plan.run, Control())
        except FedqanaError:
            shutil.rmtree(path, ignore_errors=True)
            raise
    _note(folder, "run started", plan.run, data)


def resume_run(folder: ServerFolder, run: str) -> None:
    """Go on with a run; RunMismatch where it is finished or its process lives."""
    with one_at_a_time(folder), flower_control(folder) as control:
        wanted = read_control(folder, run)
        state = state_of(folder, run, control)
        if state.alive:
            raise RunMismatch(f"run {run} is under way; see 'fedqana rounds status {run}'")
        if state.state == "finished":
            raise RunMismatch(f"run {run} is finished; start a new one with 'fedqana rounds start'")
        _require_free(folder, control, run)
        wanted.attempts = 0
        _launch(folder, control, run, wanted)
    _note(folder, "run resumed", run)


def stop_run(folder: ServerFolder, run: str) -> None:
    """Stop a run after its last finished step; it can be resumed.

    RunMismatch for one that is finished, or was stopped and has no process any more.
    """
    with one_at_a_time(folder):
        wanted = read_control(folder, run)
        if wanted.wanted == "stop":
            with flower_control(folder) as control:
                state = state_of(folder, run, control)
            if not state.alive:
                others = [n for n in run_names(folder) if read_control(folder, n).wanted == "run"]
                under_way = f"; under way: {', '.join(others)}" if others else ""
                raise RunMismatch(f"run {run} is {state.state} already{under_way}")
        wanted.wanted = "stop"
        write_control(folder, run, wanted)
        with flower_control(folder) as control:
            _stop_processes(control, wanted)
    note_stopped(folder, run)
    _note(folder, "run stopped", run)


def _stop_processes(control: FlowerControl, wanted: Control) -> None:
    for flower_run, found in control.runs(_latest(wanted)).items():
        if found.under_way:
            control.stop(flower_run)


def note_stopped(folder: ServerFolder, run: str, text: str = "stopped by the coordinator") -> None:
    """Write into the history that a run was stopped and why, whatever its process said."""
    with open_runs(folder) as history:
        if not history.has_run(run):
            return
        found = history.get_run(run)
        if found.state != "finished" and found.reason != text:
            history.finish_run(run, "stopped", text)
            history.add_event(run, "stopped", text)


def state_of(folder: ServerFolder, run: str, control: FlowerControl) -> RunState:
    """How a run stands."""
    wanted = read_control(folder, run)
    alive = is_alive(wanted, control)
    with open_runs(folder) as history:
        if not history.has_run(run):
            return RunState(run, "starting" if alive else "not begun", "", alive, wanted.wanted)
        stored = history.get_run(run)
    return RunState(run, stored.state, stored.reason, alive, wanted.wanted)


def is_alive(wanted: Control, control: FlowerControl) -> bool:
    """Whether any of a run's processes is under way; two may be, for a moment."""
    return any(found.under_way for found in control.runs(_latest(wanted)).values())


def _latest(wanted: Control) -> list[str]:
    """Flower's ids of a run's last processes: none is started while one before them lives."""
    return wanted.flower_runs[-_LATEST:]


def keep_going(folder: ServerFolder, control: FlowerControl) -> None:
    """Resume the runs that are wanted and whose process has ended before their end.

    After a crash, a restart of the machine, or a round for which too few sites answered; at most
    as often as the settings say without a finished step in between, with growing pauses. Nodes of
    revoked sites are refused, should a revocation have been cut off.
    """
    with one_at_a_time(folder):
        for run in run_names(folder):
            try:
                _keep_going(folder, control, run)
            except ServiceUnavailable:
                raise
            except FedqanaError as error:
                log.error("run %s cannot be looked after: %s", run, error)
        _look_after_nodes(folder, control)


def _look_after_nodes(folder: ServerFolder, control: FlowerControl) -> None:
    """Note which sites are connected; refuse those that were revoked."""
    with open_members(folder) as members:
        by_node = {m.node_id: m for m in members.all() if m.node_id}
        recently = datetime.now(UTC) - _HEARD_EVERY
        for node in control.nodes():
            # One that no member has is not refused: Flower never takes its key again, and a
            # database that was restored from a backup may lack it. No round asks it.
            member = by_node.get(node.node_id)
            if member is None or node.status == "unregistered":
                continue
            if member.state != "approved":
                control.unregister(node.node_id)
                log.warning("site %s is not approved: its node is refused", member.name)
            elif node.status == "online" and (member.heard_at or recently) <= recently:
                members.heard(member.name)


def _keep_going(folder: ServerFolder, control: FlowerControl, run: str) -> None:
    wanted = read_control(folder, run)
    if wanted.wanted != "run":
        return
    state = state_of(folder, run, control)
    if state.alive and not _has_died(folder, run):
        return
    if state.alive:  # Flower itself takes most of a minute to notice
        _stop_processes(control, wanted)
        return
    if state.state == "finished":
        wanted.wanted = "stop"
        write_control(folder, run, wanted)
        return
    position = _position(folder, run)
    if position != wanted.position:
        wanted.position, wanted.attempts = position, 0
    most = folder.settings().rounds.resume_attempts
    why = state.reason or "its process ended"
    if wanted.attempts >= most:
        wanted.wanted = "stop"
        write_control(folder, run, wanted)
        text = f"given up after {most} attempts: {why}"
        log.error("run %s: %s; go on with 'fedqana rounds resume %s'", run, text, run)
        note_stopped(folder, run, text)
        _note(folder, "run given up", run, text)
    elif wanted.not_before == 0.0:
        pause = min(_FIRST_PAUSE * 2**wanted.attempts, _LONGEST_PAUSE)
        wanted.not_before = time.time() + pause
        write_control(folder, run, wanted)
        log.warning("run %s stopped (%s); goes on in %.0f s", run, why, pause)
    elif time.time() >= wanted.not_before:
        wanted.attempts += 1
        _launch(folder, control, run, wanted)
        _note(folder, "run resumed by itself", run, f"attempt {wanted.attempts}")


def keep_going_forever(folder: ServerFolder, stop: threading.Event) -> None:
    """Call `keep_going` every few seconds until ``stop`` is set."""
    while not stop.wait(_LOOK_SECONDS):
        try:
            with flower_control(folder) as control:
                while not stop.wait(_LOOK_SECONDS):
                    keep_going(folder, control)
        except FedqanaError as error:  # the SuperLink restarts, the database is locked
            log.info("runs cannot be looked after now: %s", error)
        except Exception:
            log.exception("runs cannot be looked after now")


def _has_died(folder: ServerFolder, run: str) -> bool:
    """Whether the run's process wrote down its id and is gone."""
    try:
        pid = int((folder.runs / run / PID).read_text())
        return PROGRAM not in " ".join(psutil.Process(pid).cmdline())
    except (OSError, ValueError, psutil.AccessDenied):
        return False
    except psutil.NoSuchProcess:
        return True


def _launch(folder: ServerFolder, control: FlowerControl, run: str, wanted: Control) -> None:
    """Start a run's process; what is wanted is written down before, so that each try counts."""
    (folder.runs / run / PID).unlink(missing_ok=True)
    wanted.wanted, wanted.not_before = "run", 0.0
    write_control(folder, run, wanted)
    # One that was started without being written down, because the writer was killed in between.
    known = set(wanted.flower_runs)
    lost = [i for i, name in control.under_way().items() if name == run and i not in known]
    wanted.flower_runs += lost or [control.start(run)]
    write_control(folder, run, wanted)


def _require_free(folder: ServerFolder, control: FlowerControl, but: str) -> None:
    """RunMismatch where another run is under way, or waits to go on by itself."""
    if folder.settings().rounds.several_at_once:
        return
    under_way = control.under_way()
    for run in run_names(folder):
        wanted = read_control(folder, run)
        if run == but or (
            wanted.wanted == "stop" and not under_way.keys() & set(wanted.flower_runs)
        ):
            continue
        state = state_of(folder, run, control)
        # One that is finished may have a process for a moment, which does nothing any more.
        if state.state != "finished" and (state.alive or state.wanted == "run"):
            raise RunMismatch(
                f"run {run} is under way; wait for it or stop it ('fedqana rounds stop {run}'), or "
                "set several_at_once in fedqana.toml"
            )


def _position(folder: ServerFolder, run: str) -> str:
    """What a run's checkpoint says of how far it is, without reading all of it."""
    checkpoint = RunFolder(folder.runs / Path(run)).checkpoint
    try:
        return str(checkpoint.stat().st_mtime_ns)
    except FileNotFoundError:
        return ""


def _note(folder: ServerFolder, action: str, run: str, detail: str = "") -> None:
    with open_members(folder) as members:
        members.note("coordinator", action, run, detail)
