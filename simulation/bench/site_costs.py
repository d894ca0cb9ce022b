"""What a run over many sites costs on this machine: seconds, memory and bytes, round by round."""

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from server.history.records import RunRecord
from server.plan import RunPlan
from server.progress import Progress, listening

_MIB = 2**20
_EVERY = 1.0
"""Seconds from one reading of the memory to the next, within a step."""


@dataclass(frozen=True)
class Reading:
    """The processes of one moment: resident MiB, number, and processor seconds until then.

    ``coordinator`` is the process that runs the ServerApp (in-process: the sites too), ``tree``
    that one and all below it. What they can share (libraries, Ray's object store) is counted in
    the tree for one of them only, the one that has most of it; psutil tells it on Linux.
    """

    coordinator: float
    tree: float
    processes: int
    processor: float


@dataclass(frozen=True)
class RoundCosts:
    """One round: wall and processor seconds, resident MiB at its end and at most.

    ``step`` is "round", or "final" for the test at the end of the run, which is none; ``number``
    is 0 for the time before the first round. Memory as in `Reading`.
    """

    number: int
    phase: str
    step: str
    deployed: bool
    wall: float
    processor: float
    coordinator: float
    tree: float
    highest: float
    processes: int


class Watch:
    """Reads memory and processor time while a run goes on in this process and those below it.

    Processes that were below it already belong to something else. ``told`` hears of every round
    when it has ended; `rounds` keeps them all.
    """

    def __init__(self, plan: RunPlan, told: Callable[[RoundCosts], None]) -> None:
        self._plan = plan
        self._told = told
        self._used: dict[int, float] = {}
        self._lock = threading.Lock()
        self._others = frozenset(psutil.Process().children())
        self._highest = 0.0
        self._began = time.perf_counter()
        self._before = self.read()
        self.rounds: list[RoundCosts] = []

    def read(self) -> Reading:
        """The processes as they are now."""
        own, private, shared = 0, 0, [0]
        for process in self._processes():
            try:
                memory, times = process.memory_info(), process.cpu_times()
            except psutil.Error:  # it has just ended
                continue
            own = own or memory.rss
            shared.append(getattr(memory, "shared", 0))
            private += memory.rss - shared[-1]
            self._used[process.pid] = times.user + times.system
        tree = (private + max(shared)) / _MIB
        found = Reading(own / _MIB, tree, len(shared) - 1, sum(self._used.values()))
        self._highest = max(self._highest, tree)
        return found

    def _processes(self) -> list[psutil.Process]:
        """This one first, then all below it that the run started."""
        found = [psutil.Process()]
        for child in found[0].children():
            if child not in self._others:
                with suppress(psutil.Error):  # it has just ended
                    found += [child, *child.children(recursive=True)]
        return found

    def hear(self, progress: Progress) -> None:
        """A step begins or has ended: where it was a round's last, the round has."""
        last = self._last_step(progress.round)
        if progress.done and progress.step in ("handshake", last, "final"):
            self._end(progress)

    def _last_step(self, number: int) -> str:
        return "share" if self._plan.deploys(number) else "evaluate"

    def _end(self, progress: Progress) -> None:
        with self._lock:
            now, reading = time.perf_counter(), self.read()
            starting = progress.step == "handshake"
            found = RoundCosts(
                number=0 if starting else progress.round,
                phase=progress.phase,
                step="start" if starting else "final" if progress.step == "final" else "round",
                deployed=not starting and self._plan.deploys(progress.round),
                wall=now - self._began,
                processor=reading.processor - self._before.processor,
                coordinator=reading.coordinator,
                tree=reading.tree,
                highest=self._highest,
                processes=reading.processes,
            )
            self._began, self._before, self._highest = now, reading, reading.tree
        self.rounds.append(found)
        self._told(found)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Listen to the run of this block, and read the memory every second besides."""
        over = threading.Event()

        def look() -> None:
            while not over.wait(_EVERY):
                with self._lock:
                    self.read()

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            with listening(self.hear):
                yield
        finally:
            over.set()
            thread.join()


def bytes_of_sites(record: RunRecord) -> list[dict[str, Any]]:
    """Bytes down and up of one site and step: a row for each phase and step, mean and largest.

    Of accepted answers only. The phase of the final test is "".
    """
    phases = {each.number: each.phase for each in record.rounds}
    found: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for result in record.site_results:
        if result.accepted:
            phase = "" if result.step == "final" else phases[result.round]
            key = (phase, result.step)
            found.setdefault(key, []).append((result.bytes_down, result.bytes_up))
    return [
        {
            "phase": phase,
            "step": step,
            "messages": len(sizes),
            "down": round(statistics.mean(down for down, _ in sizes)),
            "up": round(statistics.mean(up for _, up in sizes)),
            "largest_up": max(up for _, up in sizes),
        }
        for (phase, step), sizes in found.items()
    ]


def totals_of_sites(record: RunRecord) -> dict[str, float]:
    """Bytes down and up of the whole run, the mean of its sites."""
    sites = sum(site.accepted for site in record.sites)
    down = sum(result.bytes_down for result in record.site_results)
    up = sum(result.bytes_up for result in record.site_results)
    return {"sites": sites, "down": down / max(sites, 1), "up": up / max(sites, 1)}


def measured(
    folder: Path,
    plan: RunPlan,
    engine: str,
    actors: int | None,
    database: str,
    cache: Path,
    told: Callable[[RoundCosts], None],
) -> dict[str, Any]:
    """Execute the run in ``folder`` to its end and say what it cost, as plain JSON values.

    ``actors`` is how many processes the Ray engine serves sites with; ``told`` hears of every
    round when it has ended. Raises as `simulation.run.execute`.
    """
    from server.history.store import open_history
    from simulation.run import execute

    watch = Watch(plan, told)
    with watch.watching():
        execute(folder, engine, cache, database, actors)  # type: ignore[arg-type]
    with open_history(database, create=False) as history:
        record = history.load_record(folder.name)
    cases = [site.n_train for site in record.sites if site.accepted]
    return {
        "run": folder.name,
        "engine": engine,
        "sites": len(cases),
        "training_cases": {"all": sum(cases), "fewest": min(cases), "most": max(cases)},
        "rounds": [asdict(each) for each in watch.rounds],
        "bytes": bytes_of_sites(record),
        "totals": totals_of_sites(record),
        "refused": sum(not result.accepted for result in record.site_results),
        "backend": record.edge_updates[-1].result["backend"] if record.edge_updates else None,
    }
