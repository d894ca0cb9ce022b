"""Keeps a set of processes running: starts, watches, restarts with backoff, ends them in order."""

import ctypes
import json
import logging
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

log = logging.getLogger("fedqana.supervisor")

_FIRST_DELAY = 1.0
_STEADY_SECONDS = 60.0
"""A process that ran for so long starts its backoff anew."""
_LOOK_SECONDS = 0.2
_PR_SET_PDEATHSIG = 1
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_LEVEL = re.compile(r"^(?:[0-9T:.Z-]+ )?(DEBUG|INFO|WARNING|ERROR|CRITICAL) *(?:: *|(?=\[))")


@dataclass(frozen=True)
class ProcessSpec:
    """A process to keep running.

    Parameters
    ----------
    name : str
        What logs call it.
    command : sequence of str
    environment : mapping
        In addition to the supervisor's own.
    after_kill : float
        Seconds to wait before a restart after the process was killed by a signal or crashed.
    longest_delay : float
        Seconds of the longest pause before a restart.
    with_parent : signal number
        What it gets when the supervisor is killed.
    stop_seconds : float
        How long it may take to end after SIGTERM before it is killed.
    diagnose : callable, optional
        Called when it ended by itself with an error: why, and what to do, in one line for the log.
    unsaid : re.Pattern, optional
        Lines that have it are not logged.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    after_kill: float = _FIRST_DELAY
    longest_delay: float = 60.0
    stop_seconds: float = 20.0
    with_parent: int = signal.SIGTERM
    diagnose: Callable[[], str] | None = None
    unsaid: re.Pattern[str] | None = None


class _Kept:
    """One process under supervision."""

    def __init__(self, spec: ProcessSpec) -> None:
        self.spec = spec
        self.process: subprocess.Popen[str] | None = None
        self.started = 0.0
        self.start_at = 0.0
        self.delay = _FIRST_DELAY

    def start(self) -> None:
        environment = {**os.environ, **self.spec.environment}
        self.started = time.monotonic()
        try:
            self.process = subprocess.Popen(
                list(self.spec.command),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                # A supervisor that is killed leaves nothing behind.
                preexec_fn=partial(_end_with_parent, self.spec.with_parent),
                start_new_session=True,
            )
        except OSError as error:  # no memory, no processes left
            self.start_at = time.monotonic() + self.delay
            self.delay = min(self.delay * 2, self.spec.longest_delay)
            log.error("cannot be started: %s", error.strerror, extra=_facts(self.spec.name))
            return
        threading.Thread(target=self._relay, args=(self.process,), daemon=True).start()
        log.info("started", extra=_facts(self.spec.name, pid=self.process.pid))

    def _relay(self, process: "subprocess.Popen[str]") -> None:
        """Pass on what the process prints, a line a record; JSON lines keep their fields."""
        assert process.stdout is not None
        for line in process.stdout:
            text = line.rstrip()
            unsaid = self.spec.unsaid
            if text and (unsaid is None or not unsaid.search(text)):
                _relay_line(self.spec.name, text)

    def ended(self) -> int | None:
        """The exit status of a process that has ended since it was started."""
        if self.process is None:
            return None
        status = self.process.poll()
        if status is None:
            return None
        ran = time.monotonic() - self.started
        self.delay = _FIRST_DELAY if ran > _STEADY_SECONDS else self.delay
        killed = status < 0 and status != -signal.SIGTERM
        wait = max(self.delay, self.spec.after_kill) if killed else self.delay
        self.start_at = time.monotonic() + wait
        self.delay = min(self.delay * 2, self.spec.longest_delay)
        self.process = None
        threading.Thread(target=self._tell, args=(status, wait), daemon=True).start()
        return status

    def _tell(self, status: int, wait: float) -> None:
        """Log an end; in a thread of its own, as a diagnosis may have to wait for a network."""
        why = "" if status <= 0 or self.spec.diagnose is None else self.spec.diagnose()
        what = f"was killed (signal {-status})" if status < 0 else f"ended with status {status}"
        text = f"{what}, starts again in {wait:.0f} s"
        log.warning(f"{text}: {why}" if why else text, extra=_facts(self.spec.name, status=status))

    def signal_end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def wait_end(self) -> None:
        if self.process is None:
            return
        try:
            self.process.wait(self.spec.stop_seconds)
        except subprocess.TimeoutExpired:
            log.warning("did not end, killed", extra=_facts(self.spec.name))
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Supervisor:
    """Runs processes until told to stop.

    Parameters
    ----------
    specs : sequence of ProcessSpec
        In the order in which they start; they are ended in the opposite one.
    """

    def __init__(self, specs: Sequence[ProcessSpec]) -> None:
        self._kept = [_Kept(spec) for spec in specs]
        self._stop = threading.Event()

    def stop(self) -> None:
        """End `run` soon; may be called from a signal handler."""
        self._stop.set()

    @property
    def stopping(self) -> threading.Event:
        """Set once the supervisor is to end."""
        return self._stop

    def run(self) -> None:
        """Keep all processes running until `stop`, SIGTERM or SIGINT; then end them in order.

        Call it from the main thread: the processes live as long as the thread that started them.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop())
        try:
            while not self._stop.is_set():
                now = time.monotonic()
                for kept in self._kept:
                    kept.ended()
                    if kept.process is None and now >= kept.start_at and not self._stop.is_set():
                        kept.start()
                self._stop.wait(_LOOK_SECONDS)
        finally:
            for kept in reversed(self._kept):
                kept.signal_end()
                kept.wait_end()


def _end_with_parent(number: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def _facts(name: str, **more: object) -> dict[str, dict[str, object]]:
    return {"facts": {"process": name, **more}}


def _relay_line(name: str, text: str) -> None:
    try:
        fields = json.loads(text)
        message, level = str(fields.pop("message")), str(fields.pop("level", "info"))
    except Exception:  # whatever a process prints, its pipe must be emptied
        plain = _COLOURS.sub("", text)
        found = _LEVEL.match(plain)
        level = found.group(1) if found else "info"
        fields, message = {}, _LEVEL.sub("", plain)
        if not message:  # Flower's empty lines between messages
            return
    number = logging.getLevelName(level.upper())
    known = number if isinstance(number, int) else logging.INFO
    log.log(known, message, extra={"facts": {**fields, "process": name}})
