"""What a watched folder remembers of the rows of a CSV file, and what it writes about them."""

import csv
import io
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from common.files import sha256_of, sync_folder, write_atomically, writing_to
from edge_client.watch_rows import WatchedRow

DONE, FAILED, WORK = "done", "failed", ".fedqana-watch"
"""Folders within a watched folder."""

_LONGEST_NAME = 180
"""Bytes; names that are made from it are longer, and file systems end at 255."""

LEARNED, DUPLICATE, REFUSED = "learned", "duplicate", "refused"
"""How a row can end."""


@dataclass(frozen=True)
class Settled:
    """How a row ended: its result, why, and the id that the case has."""

    result: str
    reason: str = ""
    case_id: str = ""


class RowRecords:
    """The settled rows of one CSV file, on disk before the next row is looked at.

    Lines are only ever appended; one cut short by a crash was not acted upon and is overwritten.

    Parameters
    ----------
    folder : Path
        The watched folder.
    name : str
        The CSV file's.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.path = _path_of(folder, name)
        self.settled: dict[str, Settled] = {}
        self.finished: tuple[str, str] | None = None
        """Which CSV file has all that is to be written about it, and the folder it goes to."""
        self._folder, self._name = folder, name
        self._target = ""
        self._listed = 0
        self._waits: dict[str, float] = {}
        self._length = 0
        content = self.path.read_bytes() if self.path.exists() else b""
        for line in content.splitlines(keepends=True):
            if not self._take(line):
                break
            self._length += len(line)

    def target(self) -> str:
        """The free name under which the file is kept in the end; from then on always the same."""
        if not self._target:
            stem, number = Path(self._name).stem, 1
            if len(os.fsencode(self._name)) > _LONGEST_NAME:
                stem = sha256_of(os.fsencode(stem))[:16]
            target = f"{stem}.csv"
            while any(map(os.path.lexists, _written_about(self._folder, target))):
                number += 1
                target = f"{stem}-{number}.csv"
            self._append({"target": target})
            self._target = target
        return self._target

    def waits_since(self, key: str, now: float) -> float:
        """When ``key`` was first asked for here, in seconds since the epoch."""
        if key not in self._waits:
            self._append({"waits": key, "since": now}, durable=False)
            self._waits[key] = now
        return self._waits[key]

    def list_failed(self, source: Path, rows: Sequence[WatchedRow]) -> None:
        """Write ``failed/NAME.csv`` where rows were refused since it was written last.

        It has the refused rows as they were, each with the reason.
        """
        ended = [(row, self.settled[row.key]) for row in rows if row.key in self.settled]
        refused = [(row, end.reason) for row, end in ended if end.result == REFUSED]
        if not rows or len(refused) == self._listed:
            return
        columns = [c for c in rows[0].values if c not in ("line", "reason")]
        lines: list[list[object]] = [[*columns, "line", "reason"]]
        for row, reason in refused:
            lines.append([*(row.values[column] for column in columns), row.line, reason])
        _write(self._folder / FAILED / self.target(), lines, source)
        self._append({"listed": len(refused)})
        self._listed = len(refused)

    def write_results(self, source: Path, rows: Sequence[WatchedRow]) -> None:
        """Write ``done/NAME.results.csv``: of every row how it ended; all must have."""
        lines: list[list[object]] = [["line", "image", "diagnosis", "case", "result", "reason"]]
        first: dict[str, int] = {}
        for row in rows:
            end = self.settled[row.key]
            if row.key in first and end.result == LEARNED:
                end = Settled(DUPLICATE, f"line {first[row.key]} says the same", end.case_id)
            first.setdefault(row.key, row.line)
            lines.append([row.line, row.image, row.diagnosis, end.case_id, end.result, end.reason])
        _write(_results_of(self._folder, self.target()), lines, source)

    def write_reason(self, source: Path, reason: str) -> None:
        """Write ``failed/NAME.csv.reason.txt`` about a file of which no row can be read."""
        _write_text(_reason_of(self._folder, self.target()), f"{reason}\n", source)

    def settle(self, key: str, settled: Settled) -> None:
        """Write down how a row ended; durable when it returns."""
        facts = [settled.result, settled.reason, settled.case_id]
        self._append({"row": key, "settled": facts})
        self.settled[key] = settled

    def finish(self, identity: str, kind: str) -> None:
        """Write down that the CSV file of this identity can be moved to the folder ``kind``."""
        self._append({"finished": identity, "to": kind})
        self.finished = identity, kind

    def end(self) -> Path:
        """Where the finished CSV file is moved to."""
        assert self.finished is not None
        return self._folder / self.finished[1] / self.target()

    def reopen(self) -> None:
        """Write down that the CSV file was changed, and is not finished after all."""
        self._append({"finished": None})
        self.finished = None

    def remove(self) -> None:
        """Forget the file."""
        with writing_to(self.path):
            self.path.unlink(missing_ok=True)
            if self.path.parent.is_dir():
                sync_folder(self.path.parent)

    def _append(self, entry: Mapping[str, object], *, durable: bool = True) -> None:
        line = json.dumps(entry).encode() + b"\n"
        is_new = not self._length
        with writing_to(self.path):
            self.path.parent.mkdir(exist_ok=True)
            with self.path.open("wb" if is_new else "r+b") as stream:
                stream.seek(self._length)  # over what a write that failed may have left
                stream.write(line)
                stream.truncate()
                stream.flush()
                if durable:
                    os.fsync(stream.fileno())
            if is_new:
                sync_folder(self.path.parent)
        self._length += len(line)

    def _take(self, line: bytes) -> bool:
        """Take over a line; False where it is not whole."""
        if not line.endswith(b"\n"):
            return False
        try:
            entry = json.loads(line)
            if "row" in entry:
                self.settled[entry["row"]] = Settled(*map(str, entry["settled"]))
            elif "waits" in entry:
                self._waits[entry["waits"]] = float(entry["since"])
            elif "listed" in entry:
                self._listed = int(entry["listed"])
            elif "target" in entry:
                self._target = str(entry["target"])
            elif entry["finished"] is None:
                self.finished = None
            else:
                self.finished = str(entry["finished"]), str(entry["to"])
        except (ValueError, KeyError, TypeError):
            return False
        return True


def move_durably(source: Path, target: Path) -> None:
    """Rename a file into another folder so that it is in one of both after a power cut."""
    with writing_to(target):
        target.parent.mkdir(exist_ok=True)
        source.rename(target)
        sync_folder(target.parent)
        sync_folder(source.parent)


def tidy(folder: Path, names: Sequence[str]) -> None:
    """Remove what a kill left half-written, and the records of CSV files that are gone.

    Only with the folder's lock held; ``names`` are the CSV files there are.
    """
    for kind in (DONE, FAILED):
        for partial in (folder / kind).glob(".*.partial"):
            partial.unlink(missing_ok=True)
    known = {_path_of(folder, name) for name in names}
    for path in (folder / WORK).glob("*.jsonl"):
        if path not in known:
            path.unlink(missing_ok=True)


def _results_of(folder: Path, target: str) -> Path:
    return folder / DONE / f"{Path(target).stem}.results.csv"


def _reason_of(folder: Path, target: str) -> Path:
    return folder / FAILED / f"{target}.reason.txt"


def _written_about(folder: Path, target: str) -> list[Path]:
    """All that is kept under a name."""
    kept = [folder / DONE / target, folder / FAILED / target]
    return [*kept, _results_of(folder, target), _reason_of(folder, target)]


def _path_of(folder: Path, name: str) -> Path:
    return folder / WORK / f"{sha256_of(os.fsencode(name))}.jsonl"


def _write(path: Path, lines: Sequence[Sequence[object]], like: Path) -> None:
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows(lines)
    _write_text(path, stream.getvalue(), like)


def _write_text(path: Path, text: str, like: Path) -> None:
    """Write a file that is readable to whoever may read ``like``."""
    write_atomically(path, text.encode(errors="backslashreplace"))
    with suppress(OSError):  # not every network share knows permissions
        shutil.copymode(like, path)
        shutil.copymode(like.parent, path.parent)
