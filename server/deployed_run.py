"""A run of a deployed server, within Flower's ServerApp process: folder, lock, log and progress.

runs/RUN/progress.json   what it is doing now, for `fedqana rounds status`
runs/RUN/log.jsonl       a line a step, for `fedqana rounds logs`
"""

import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.errors import FedqanaError
from common.file_lock import file_lock
from common.json_log import rotating_file
from server.delivery_order import read_delivery
from server.history.membership import Membership
from server.history.store import open_history
from server.progress import Progress, listening
from server.run_control import PID, note_stopped, read_control
from server.run_folder import RunFolder, coordinate
from server.server_database import open_members
from server.server_settings import ServerFolder, folder_of_this_process
from server.transport import Transport

log = logging.getLogger("fedqana.run")

PROGRESS = "progress.json"
LOG = "log.jsonl"
_PATIENCE = 30.0
"""Seconds for the process before, which may have lost its SuperLink, to end."""


def coordinate_deployed(run: str, transport: Callable[[Membership], Transport]) -> None:
    """Run or resume a run of the server's folder that the environment names."""
    folder = folder_of_this_process()
    path = folder.runs / Path(run).name
    handler = rotating_file(path / LOG)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    busy = f"run {run} is under way in another process; wait for it to end"
    try:
        with (
            file_lock(path / "lock", _PATIENCE, busy),
            open_members(folder) as members,
            listening(lambda progress: _show(path, progress)),
        ):
            (path / PID).write_text(str(os.getpid()))
            log.info("process started", extra={"facts": {"pid": os.getpid()}})
            key, url = folder.bundle_key.read_bytes(), folder.database_url()
            delivered = read_delivery(path)
            if delivered is None:
                coordinate(path, transport(members), url, key)
            else:
                from server.delivery import deliver

                with open_history(url) as history:
                    deliver(RunFolder(path), delivered, transport(members), history, key)
    except FedqanaError as error:
        log.error("stopped: %s", error)
        raise
    except Exception:
        if read_control(folder, run).wanted == "stop":  # Flower refuses a stopped run's calls
            log.info("stopped by the coordinator")
            note_stopped(folder, run)
        else:
            log.exception("failed")
        raise
    finally:
        log.removeHandler(handler)
        handler.close()


def read_progress(folder: ServerFolder, run: str) -> dict[str, Any] | None:
    """What a run last said of itself; None before its first word."""
    try:
        value = json.loads((folder.runs / run / PROGRESS).read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _show(path: Path, progress: Progress) -> None:
    """Replace the progress file; not flushed to disk, as only the living read it."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    partial = path / f".{PROGRESS}.partial"
    partial.write_text(json.dumps({**asdict(progress), "at": now, "pid": os.getpid()}))
    partial.replace(path / PROGRESS)
    if progress.done:
        facts = {"round": progress.round, "step": progress.step}
        log.info(progress.message or "done", extra={"facts": facts})
