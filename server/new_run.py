"""A new run of the deployed server: its name, its plan, its start."""

import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.errors import SettingsError
from server.plan import make_plan
from server.run_control import launch_new
from server.run_folder import RunFolder
from server.server_database import open_members
from server.server_settings import ServerFolder


def new_run_name() -> str:
    """A name that sorts by time and does not repeat."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.urandom(2).hex()}"


def check_run_name(run: str) -> None:
    """SettingsError for a name that no run may have."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", run):
        raise SettingsError(f"--run {run}: use letters, digits, '.', '_' and '-'")
    if run == "latest":
        raise SettingsError("--run latest: this names the newest run; use another name")


def new_run(
    path: Path, name: str | None, classes: tuple[str, ...], settings: Any, initial: bytes = b""
) -> str:
    """Start a run for all approved sites, from a file of weights; returns its name."""
    folder = ServerFolder(path)
    folder.settings()
    run = name or new_run_name()
    check_run_name(run)
    with open_members(folder) as members:
        approved = [m.name for m in members.all() if m.state == "approved"]
    if not approved:
        raise SettingsError(
            "no site is approved yet, so there is nobody to train with; see 'fedqana site list'"
        )
    plan = make_plan(run=run, classes=classes, expected_sites=len(approved), **settings)
    launch_new(folder, plan, "hospital sites", lambda p: RunFolder(p).keep_initial(initial))
    return run
