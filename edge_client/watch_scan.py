"""One look at a watched folder: what is ready in its CSV files is learned, and written down."""

import os
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.data.tables import lists_images, missing_columns, parse_table
from common.errors import DataError, DataUnfit, DataUnreadable, FedqanaError, StorageError
from common.files import sha256_of
from edge_client.watch_records import (
    DONE,
    DUPLICATE,
    FAILED,
    LEARNED,
    REFUSED,
    RowRecords,
    Settled,
    move_durably,
)
from edge_client.watch_rows import (
    WatchedRow,
    as_sent,
    contradictions,
    is_changing,
    read_image,
    rows_of,
)

_WAITING = "waiting"
_LARGEST_CSV = 64 << 20
_SILENT_ROWS = 3
"""So many rows in a row newly without an answer, and the others are not asked for this time."""


@dataclass(frozen=True)
class LearnOutcome:
    """What became of one case.

    ``"later"`` is for reasons that pass: the row is tried again with every look, without end. Of
    a refused row ``reason`` is shown to whoever put it there.
    """

    result: Literal["learned", "duplicate", "refused", "later"]
    reason: str = ""


Learn = Callable[[bytes, str, str, str], LearnOutcome]
"""From encoded image, diagnosis, case id and lesion id.

What it learned must be durable when it returns, and it answers "duplicate" for a case id that it
knows. A DataError counts as "refused", any other exception as no answer.
"""


@dataclass(frozen=True)
class WatchSettings:
    """What a watched folder takes, and how long it waits.

    Parameters
    ----------
    settle : float
        Seconds for which a file must not have changed before it is read.
    patience : float
        Seconds after which an image that is not there, or a CSV file that does not end in a
        newline, is reported.
    codes : tuple of str, optional
        The class codes that are allowed; without it whoever learns decides.
    """

    settle: float = 5.0
    patience: float = 3600.0
    codes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class ScanReport:
    """What one look at the folder did.

    Parameters
    ----------
    learned, duplicates, refused : int
        Rows that ended so with this look.
    waiting : int
        Rows to be tried again.
    files_done, files_failed, files_waiting : int
        CSV files moved to ``done/``, moved to ``failed/`` as a whole, and left.
    obstacles : tuple of str
        Kinds of errors that kept rows or files waiting; no text of theirs.
    halted : bool
        Not all that was ready could be dealt with.
    """

    learned: int = 0
    duplicates: int = 0
    refused: int = 0
    waiting: int = 0
    files_done: int = 0
    files_failed: int = 0
    files_waiting: int = 0
    obstacles: tuple[str, ...] = ()
    halted: bool = False


class Scan:
    """One look at a folder whose lock is held.

    Parameters
    ----------
    folder : Path
        Resolved: without links.
    learn : callable
    settings : WatchSettings
    stop : threading.Event
        Once it is set no further row is handed to ``learn``.
    unanswered : set of str
        Ids of the cases that had no answer in the looks before, brought up to date: they are
        asked for again, but do not count as a service that has gone silent.
    """

    def __init__(
        self,
        folder: Path,
        learn: Learn,
        settings: WatchSettings,
        stop: threading.Event,
        unanswered: set[str],
    ) -> None:
        self._folder, self._learn = folder, learn
        self._settings, self._stop = settings, stop
        self._unanswered = unanswered
        self._rows: Counter[str] = Counter()
        self._files: Counter[str] = Counter()
        self._obstacles: list[str] = []
        self._silent = 0
        self._asked = self._answered = 0
        self._halted = False

    def report(self) -> ScanReport:
        """What was done so far."""
        return ScanReport(
            learned=self._rows[LEARNED],
            duplicates=self._rows[DUPLICATE],
            refused=self._rows[REFUSED],
            waiting=self._rows[_WAITING],
            files_done=self._files[DONE],
            files_failed=self._files[FAILED],
            files_waiting=self._files[_WAITING],
            obstacles=tuple(dict.fromkeys(self._obstacles)),
            halted=self._halted or (self._asked >= _SILENT_ROWS and not self._answered),
        )

    def file(self, name: str) -> None:
        """Go through one CSV file; what is wrong with its place on disk keeps no other waiting."""
        try:
            kind = self._file(self._folder / name)
        except FileNotFoundError:  # taken away since the folder was listed
            return
        except (StorageError, OSError) as error:
            self._obstacles.append(kind_of(error))
            self._halted = True
            kind = _WAITING
        self._files[kind] += 1

    def _file(self, path: Path) -> str:
        """Deal with a file; returns where it is afterwards."""
        found = path.lstat()
        if is_changing(found.st_mtime, self._settings.settle) or not found.st_size:
            return _WAITING
        records = RowRecords(self._folder, path.name)
        if records.finished is not None:
            if records.finished[0] == _identity(found):
                return _moved(path, records, found)
            if os.path.lexists(records.end()):  # of a file that had the same name
                records.remove()
                records = RowRecords(self._folder, path.name)
            else:
                records.reopen()
        try:
            rows = self._rows_of(path, found, records)
        except DataError as error:
            records.write_reason(path, _one_line(error))
            records.finish(_identity(found), FAILED)
            return _moved(path, records, found)
        if rows is None:
            return _WAITING
        self._learn_rows(rows, records)
        records.list_failed(path, rows)
        if any(row.key not in records.settled for row in rows):
            return _WAITING
        records.write_results(path, rows)
        records.finish(_identity(found), DONE)
        return _moved(path, records, found)

    def _rows_of(
        self, path: Path, found: os.stat_result, records: RowRecords
    ) -> list[WatchedRow] | None:
        """What a file lists, None while it is being written; DataError where that is nothing."""
        if not stat.S_ISREG(found.st_mode):
            raise DataUnfit("it is a link or no file; put the file itself into the folder")
        if found.st_size > _LARGEST_CSV:
            raise DataUnfit(f"it has more than {_LARGEST_CSV >> 20} MiB; divide it")
        content = path.read_bytes()
        if _identity(path.lstat()) != _identity(found):
            return None
        if not content.endswith((b"\n", b"\r")):
            if self._waits(records, ""):
                return None
            raise DataUnfit("it does not end in a newline, so its end may be missing; add one")
        table = parse_table(content, Path(path.name))
        if not lists_images(table):
            raise DataUnreadable(missing_columns(table))
        return rows_of(table)

    def _waits(self, records: RowRecords, key: str) -> bool:
        """Whether the patience for what is not there yet still lasts."""
        now = time.time()
        return now - records.waits_since(key, now) < self._settings.patience

    def _learn_rows(self, rows: Sequence[WatchedRow], records: RowRecords) -> None:
        contradicting = contradictions(rows)
        for row in rows:
            if row.key in records.settled:
                continue
            settled = None
            if not self._stop.is_set() and self._silent < _SILENT_ROWS:
                settled = self._learn_row(row, records, contradicting.get(row.key, ""))
            if settled is None:
                self._rows[_WAITING] += 1
            else:
                records.settle(row.key, settled)
                self._rows[settled.result] += 1

    def _learn_row(
        self, row: WatchedRow, records: RowRecords, contradiction: str
    ) -> Settled | None:
        """How the row ended, None where it is to be tried again."""
        if contradiction:
            return Settled(REFUSED, contradiction)
        codes = self._settings.codes
        if codes is not None and row.diagnosis not in codes:
            return Settled(REFUSED, f"the diagnosis is not one of {', '.join(codes)}; correct it")
        try:
            content = read_image(self._folder, row.image, self._settings.settle)
            if content is None:
                if self._waits(records, row.key):
                    return None
                return Settled(REFUSED, "the image is not there; add it and give the row again")
            image = as_sent(content)
        except DataError as error:
            return Settled(REFUSED, _one_line(error))
        return self._ask(row, row.case or sha256_of(content), image)

    def _ask(self, row: WatchedRow, case_id: str, image: bytes) -> Settled | None:
        self._asked += 1
        try:
            outcome = self._learn(image, row.diagnosis, case_id, row.lesion or case_id)
        except DataError as error:
            outcome = LearnOutcome("refused", str(error))
        except Exception as error:
            self._silent += case_id not in self._unanswered
            self._unanswered.add(case_id)
            self._halted |= self._silent >= _SILENT_ROWS
            self._obstacles.append(kind_of(error))
            return None
        self._silent = 0
        self._answered += 1
        self._unanswered.discard(case_id)
        if outcome.result == "later":
            return None
        return Settled(outcome.result, " ".join(outcome.reason.split()), case_id)


def kind_of(error: Exception) -> str:
    """An error's name, and of an unexpected one its place: its text may name a patient."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if isinstance(error, FedqanaError) or trace is None:
        return type(error).__name__
    place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
    return f"{type(error).__name__} at {place}"


def _moved(path: Path, records: RowRecords, found: os.stat_result) -> str:
    """Move a finished file to where it belongs, unless it was changed since it was read."""
    assert records.finished is not None
    kind, end = records.finished[1], records.end()
    move_durably(path, end)
    if _identity(end.lstat()) != _identity(found) and not os.path.lexists(path):
        move_durably(end, path)  # lines were added at this very moment
        records.reopen()
        return _WAITING
    records.remove()
    return kind


def _identity(found: os.stat_result) -> str:
    return f"{found.st_ino} {found.st_size} {found.st_mtime_ns}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
