"""Where the dashboard's facts come from: the database, the SuperLink, the runs' folders."""

import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

from common.errors import ServiceUnavailable
from server.flower_control import flower_control
from server.history.excerpts import Excerpts, open_excerpts
from server.history.records import RunRecord
from server.server_settings import ServerFolder

T = TypeVar("T")

_SUPERLINK_SECONDS = 2.0
"""For so long an answer of the SuperLink serves all pages that are open."""
_PATIENCE = 3.0
"""So long a page waits for it."""
_RECORDS = 3
"""Runs of which the record is kept; one of 30 rounds and eight sites takes some 50 MB."""


@dataclass(frozen=True)
class Superlink:
    """What the SuperLink said: nodes' status by id, ids of runs that have not ended.

    ``problem`` is empty where it answered; ``is_down`` where nothing listens or nothing comes back.
    """

    problem: str = ""
    is_down: bool = False
    nodes: dict[str, str] = field(default_factory=dict)
    under_way: frozenset[str] = frozenset()

    @property
    def answers(self) -> bool:
        """Whether it answered."""
        return not self.problem


class Held:
    """A run's record, and what was worked out of it: done once for as long as it is the same."""

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self._lock = threading.Lock()
        self._made: dict[str, Any] = {}

    def once(self, key: str, make: Callable[[RunRecord], T]) -> T:
        """What ``make`` makes of the record; ``key`` tells it from others."""
        with self._lock:
            if key not in self._made:
                self._made[key] = make(self.record)
            found: T = self._made[key]
            return found

    @property
    def mark(self) -> str:
        """Equal for equal contents: in a figure's address, browsers may keep the figure."""
        return self.once("mark", _mark)


class Source:
    """All that the pages read, from one server's folder; used by several threads.

    Parameters
    ----------
    folder : ServerFolder
    """

    def __init__(self, folder: ServerFolder) -> None:
        self.folder = folder
        self._superlink: Future[Superlink] | None = None
        self._asked_at = float("-inf")
        self._asking = threading.Lock()
        self._records: OrderedDict[str, Held] = OrderedDict()
        self._loading = threading.Lock()

    def open(self) -> Excerpts:
        """The database, to be closed after the page: it may be replaced or upgraded meanwhile."""
        return open_excerpts(self.folder.database_url())

    def record(self, excerpts: Excerpts, name: str) -> Held:
        """A run's record without its events; RunNotFound names the runs there are."""
        run_id = excerpts.history.get_run(name).run_id
        with self._loading:  # two open pages do not read the same rows twice
            held = self._records.pop(run_id, None)
            record = excerpts.record(run_id, held.record if held else None)
            if held is None or record is not held.record:
                held = Held(record)
            self._records[run_id] = held
            while len(self._records) > _RECORDS:
                self._records.popitem(last=False)
            return held

    def superlink(self) -> Superlink:
        """What the SuperLink says now, or said a moment ago; no page waits long for it."""
        with self._asking:
            answered = self._superlink is None or self._superlink.done()
            if answered and time.monotonic() - self._asked_at > _SUPERLINK_SECONDS:
                self._superlink = _in_background(_ask, self.folder)
                self._asked_at = time.monotonic()
            question, asked_at = self._superlink, self._asked_at
        assert question is not None
        try:
            return question.result(max(0.0, asked_at + _PATIENCE - time.monotonic()))
        except TimeoutError:
            return Superlink(
                f"the SuperLink of this machine has not answered within {_PATIENCE:.0f} s; see "
                "logs/server.log in the server's folder"
            )


def _in_background(ask: Callable[[ServerFolder], T], folder: ServerFolder) -> "Future[T]":
    """What ``ask`` will answer, from a thread that does not keep the process from ending."""
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(ask(folder))
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return answer


def _ask(folder: ServerFolder) -> Superlink:
    try:
        with flower_control(folder) as control:
            nodes = {node.node_id: node.status for node in control.nodes()}
            under_way = control.under_way()
    except ServiceUnavailable as error:
        refused = isinstance(error.__cause__, httpx.HTTPStatusError)
        return Superlink(str(error), is_down=not refused)
    except OSError as error:  # the CA's certificate, by which the SuperLink is known
        return Superlink(f"cannot read {folder.ca} ({error.strerror}); restore it from a backup")
    return Superlink(nodes=nodes, under_way=frozenset(under_way))


def _mark(record: RunRecord) -> str:
    # Results are not hashed themselves: a row with the same key, times and sizes is the same.
    facts: list[Any] = [record.run.run_id, str(record.run.created_at), record.run.classes]
    facts += [[r.number, r.phase] for r in record.rounds]
    facts += [
        [r.round, r.site, r.step, r.accepted, r.seconds, r.bytes_down, r.bytes_up]
        for r in record.site_results
    ]
    facts += [[u.round, u.site, u.version, u.switched] for u in record.edge_updates]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
