"""A real server and real sites as processes on this machine, driven by the `fedqana` command."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from server.history.store import History, open_history
from tests.deployment.relay import Relay

FEDQANA = str(Path(sys.executable).parent / "fedqana")
ROUNDS = ("--network", "small", "--batch", "16", "--rounds", "1", "--qat-rounds", "1")


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nothing listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def fedqana(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command; its output, or an AssertionError with what it said."""
    done = subprocess.run([FEDQANA, *arguments], capture_output=True, text=True, timeout=120)
    if check:
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done


def eventually(what: str, seconds: float, look: Callable[[], Any]) -> Any:
    """What ``look`` returns once it is true; AssertionError after so many seconds."""
    give_up = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < give_up, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.5)


class Process:
    """A `fedqana` process that runs until it is stopped."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self.log = log
        self.command = [FEDQANA, *arguments]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; its output is appended to the log."""
        with self.log.open("ab") as stream:
            self._process = subprocess.Popen(
                self.command, stdout=stream, stderr=stream, start_new_session=True
            )

    def stop(self, number: int = signal.SIGTERM, seconds: float = 40.0) -> None:
        """End it and wait until all of its children are gone."""
        if self._process is None:
            return
        children = self.family()
        if self._process.poll() is None:
            self._process.send_signal(number)
        self._process.wait(seconds)
        _, alive = psutil.wait_procs(children, timeout=seconds)
        for child in alive:
            child.kill()
        self._process = None

    def family(self) -> list[psutil.Process]:
        """All living descendants."""
        assert self._process is not None
        try:
            return psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def child(self, *words: str) -> psutil.Process | None:
        """The first living descendant whose command line has all of the words."""
        for process in self.family():
            try:
                line = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if all(word in line for word in words):
                return process
        return None

    def kill(self, *words: str, number: int = signal.SIGKILL) -> int:
        """Send a signal to a descendant; returns its process id."""
        found = eventually(f"a process of {words}", 30, lambda: self.child(*words))
        os.kill(found.pid, number)
        return int(found.pid)

    def lines(self) -> list[dict[str, Any]]:
        """The log's JSON lines."""
        found = []
        for line in self.log.read_text().splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    def said(self, text: str) -> bool:
        """Whether a log line holds ``text``."""
        return text in self.log.read_text()


class Hospitals:
    """One coordinator's server and its sites."""

    def __init__(self, root: Path, relayed: bool = False, **init: str) -> None:
        self.root = root
        port, superlink, enrolment = free_ports(3)
        self.folder = root / "server"
        # What sites reach may be a network that can be cut instead of the server itself.
        self.relay = Relay(port) if relayed else None
        self.address = f"127.0.0.1:{self.relay.port if self.relay else port}"
        options = {
            "--address": self.address,
            "--listen": f"127.0.0.1:{port}",
            "--superlink-port": str(superlink),
            "--enrolment-port": str(enrolment),
            **{f"--{name.replace('_', '-')}": value for name, value in init.items()},
        }
        self.port, self.superlink = port, superlink
        fedqana("server", "init", str(self.folder), *(v for pair in options.items() for v in pair))
        self.server = Process(root / "server.out", "server", "start", "--server", str(self.folder))
        self.clients: dict[str, Process] = {}

    def home(self, site: str) -> Path:
        """A site's folder."""
        return self.root / f"home-{site}"

    def start_server(self) -> None:
        """Start the server and wait until it answers."""
        self.server.start()
        eventually("the server answers", 60, self.server_answers)

    def server_answers(self) -> bool:
        """Whether SuperLink and front answer."""
        nodes = fedqana("site", "list", "--json", "--server", str(self.folder), check=False)
        if nodes.returncode:
            return False
        for port in (self.port, self.superlink):
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", port)):
                    return False
        return True

    def invite(self, site: str) -> Path:
        """A site's enrolment file."""
        file = self.root / f"{site}.json"
        self.coordinator("site", "invite", site, "--out", str(file))
        return file

    def join(self, site: str, data: Path, *more: str, check: bool = True) -> Any:
        """Invite a site and let it join."""
        file = self.invite(site)
        (port,) = free_ports(1)
        home = ("--home", str(self.home(site)), "--port", str(port))
        done = fedqana("client", "join", str(file), "--data", str(data), *home, *more, check=check)
        client = Process(
            self.root / f"{site}.out", "client", "start", "--home", str(self.home(site))
        )
        self.clients[site] = client
        return done

    def approve(self, *sites: str) -> None:
        """Approve sites."""
        for site in sites:
            self.coordinator("site", "approve", site)

    def coordinator(self, *arguments: str, check: bool = True) -> Any:
        """Run a command of the coordinator."""
        return fedqana(*arguments, "--server", str(self.folder), check=check)

    def client(self, site: str, *arguments: str, check: bool = True) -> Any:
        """Run a command of a site."""
        return fedqana("client", *arguments, "--home", str(self.home(site)), check=check)

    def sites(self) -> dict[str, dict[str, Any]]:
        """The list of sites by name."""
        listed = json.loads(self.coordinator("site", "list", "--json").stdout)
        return {site["name"]: site for site in listed}

    def wait_online(self, *sites: str, seconds: float = 120) -> None:
        """Wait until the nodes of these sites are connected."""

        def online() -> bool:
            known = self.sites()
            return all(known[site]["online"] for site in sites)

        eventually(f"{sites} online", seconds, online)

    def start_run(self, name: str, *options: str) -> None:
        """Start a small run."""
        self.coordinator("rounds", "start", "--run", name, *ROUNDS, *options)

    def history(self) -> History:
        """The run history; reading it needs no server."""
        return open_history(f"sqlite:///{self.folder / 'history.db'}", create=False)

    def status(self, run: str) -> dict[str, Any]:
        """How a run stands."""
        found = self.coordinator("rounds", "status", run, "--json", check=False)
        status: dict[str, Any] = json.loads(found.stdout) if found.returncode == 0 else {}
        return status

    def wait_for(self, run: str, what: str, seconds: float, look: Callable[[Any], Any]) -> Any:
        """Wait until a run's status is as wanted; returns it."""

        def seen() -> Any:
            status = self.status(run)
            return status if status and look(status) else None

        return eventually(f"{run}: {what}; it is {self.status(run)}", seconds, seen)

    def wait_step(self, run: str, round_number: int, step: str, seconds: float = 120) -> Any:
        """Wait until a run is in a step (its first word of it, or later ones)."""

        def there(status: Any) -> bool:
            now = status["progress"]
            return bool(now) and (now["round"], now["step"]) == (round_number, step)

        return self.wait_for(run, f"round {round_number}, {step}", seconds, there)

    def wait_finished(self, run: str, seconds: float = 240) -> Any:
        """Wait for a run's end."""
        return self.wait_for(run, "finished", seconds, lambda s: s["state"] == "finished")

    def stop(self) -> None:
        """Stop everything."""
        for process in (*self.clients.values(), self.server):
            process.stop()
        if self.relay is not None:
            self.relay.close()


@contextmanager
def hospitals(root: Path, relayed: bool = False, **init: str) -> Iterator[Hospitals]:
    """A server's folder, and an end to all processes whatever happens."""
    made = Hospitals(root, relayed, **init)
    try:
        yield made
    finally:
        made.stop()
