"""The real `fedqana server dashboard` in a process of its own, and pages asked of it."""

import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from server.server_settings import ServerFolder
from tests.cli.command import ROOT


@dataclass(frozen=True)
class Page:
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body."""
        return self.body.decode()


class Dashboard:
    """The process; it listens already."""

    def __init__(self, folder: ServerFolder | Path) -> None:
        path = folder.path if isinstance(folder, ServerFolder) else folder
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.process = start(path, self.port)
        assert self.process.stdout is not None
        self.first_line = self.process.stdout.readline()
        if not self.first_line:
            _, errors = self.process.communicate(timeout=30)
            raise AssertionError(errors)

    def get(self, path: str) -> Page:
        """Ask for a page as a browser does."""
        return self.ask("GET", path, [("Host", f"127.0.0.1:{self.port}")])

    def ask(self, method: str, path: str, headers: Sequence[tuple[str, str]]) -> Page:
        """Send exactly these headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers:
                connection.putheader(name, value)
            connection.endheaders()
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Page(response.status, found, response.read())
        finally:
            connection.close()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit status."""
        self.process.send_signal(number)
        return self.process.wait(30)


def start(path: Path, port: int) -> subprocess.Popen[str]:
    """The command."""
    command = [sys.executable, "-m", "simulation.cli", "server", "dashboard"]
    return subprocess.Popen(
        [*command, "--server", str(path), "--port", str(port)],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def dashboard(folder: ServerFolder | Path) -> Iterator[Dashboard]:
    """A dashboard of ``folder``; ended at the end. What it wrote to standard error is shown."""
    found = Dashboard(folder)
    try:
        yield found
    finally:
        try:
            if found.process.poll() is None:
                found.stop()
        finally:
            found.process.kill()
            found.process.wait()
        assert found.process.stdout is not None and found.process.stderr is not None
        found.process.stdout.close()
        errors = found.process.stderr.read()
        found.process.stderr.close()
        sys.stderr.write(errors)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_page(run: str, more: str = "") -> str:
    """The address of a run's page."""
    return f"/runs/{quote(run, safe='')}{more}"
