"""Processes are kept running, end in order, and never outlive their supervisor."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

_PROGRAM = """
import sys
from common.json_log import log_to_stream
from common.supervisor import ProcessSpec, Supervisor
log_to_stream()
child = "import time, os; print('here', os.getpid(), flush=True); time.sleep(600)"
short = "import sys; print('\\x1b[91mERROR\\x1b[0m: broken', flush=True); sys.exit(3)"
specs = {
    "long": [ProcessSpec("long", [sys.executable, "-c", child])],
    "short": [ProcessSpec("short", [sys.executable, "-c", short], diagnose=lambda: "because")],
    "late": [ProcessSpec("late", [sys.executable, "-c", child], after_kill=30)],
}
Supervisor(specs[sys.argv[1]]).run()
print("ended", flush=True)
"""


class Running:
    """A supervisor in a process of its own."""

    def __init__(self, folder: Path, which: str) -> None:
        self._log = folder / "log"
        self._stream = self._log.open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, which], stdout=self._stream, stderr=self._stream
        )

    def lines(self) -> list[dict[str, object]]:
        """Its log."""
        found = []
        for line in self._log.read_text().splitlines():
            if line.startswith("{"):
                found.append(json.loads(line))
        return found

    def children(self) -> list[psutil.Process]:
        """Its processes."""
        return psutil.Process(self.process.pid).children()


def soon(look: Callable[[], object], seconds: float = 20.0) -> object:
    give_up = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < give_up, "not in time"
        time.sleep(0.05)
    return found


@pytest.fixture
def start(tmp_path: Path) -> object:
    running: list[Running] = []

    def make(which: str) -> Running:
        running.append(Running(tmp_path, which))
        return running[-1]

    yield make
    for one in running:
        one.process.kill()


def test_what_was_killed_starts_again(start: Callable[[str], Running]) -> None:
    supervisor = start("long")
    first = soon(supervisor.children)[0]  # type: ignore[index]
    first.kill()
    second = soon(lambda: [c for c in supervisor.children() if c.pid != first.pid])
    assert second
    assert soon(lambda: [x for x in supervisor.lines() if "was killed" in str(x["message"])])


def test_a_pause_after_a_kill_is_kept(start: Callable[[str], Running]) -> None:
    supervisor = start("late")
    soon(supervisor.children)[0].kill()  # type: ignore[index]
    soon(lambda: [x for x in supervisor.lines() if "again in 30 s" in str(x["message"])])
    time.sleep(2)
    assert not supervisor.children()


def test_it_ends_with_its_processes(start: Callable[[str], Running]) -> None:
    supervisor = start("long")
    child = soon(supervisor.children)[0]  # type: ignore[index]
    supervisor.process.terminate()
    assert supervisor.process.wait(10) == 0
    assert not child.is_running()


def test_nothing_outlives_a_supervisor_that_is_killed(start: Callable[[str], Running]) -> None:
    supervisor = start("long")
    child = soon(supervisor.children)[0]  # type: ignore[index]
    os.kill(supervisor.process.pid, signal.SIGKILL)
    supervisor.process.wait(10)
    soon(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_what_ends_by_itself_is_diagnosed_and_tried_ever_more_rarely(
    start: Callable[[str], Running],
) -> None:
    supervisor = start("short")
    ends = soon(
        lambda: (
            found
            if len(found := [x for x in supervisor.lines() if "ended with" in str(x["message"])])
            >= 3
            else []
        ),
        30,
    )
    assert isinstance(ends, list)
    texts = [str(line["message"]) for line in ends[:3]]
    assert all("status 3" in text and text.endswith(": because") for text in texts)
    assert [text.split("again in ")[1].split()[0] for text in texts] == ["1", "2", "4"]
    printed = [x for x in supervisor.lines() if x["message"] == "broken"]
    assert printed and printed[0]["level"] == "error" and printed[0]["process"] == "short"
