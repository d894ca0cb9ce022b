"""What left the site: one line of JSON for every message, each chained to the line before.

HOME/audit.jsonl           newest lines
HOME/audit-LINE.jsonl      older ones up to line LINE, the same chain
HOME/audit.head            how many lines there are and the last one's hash
HOME/audit.lock            held while a line is written

A line is on disk before its message is handed over, so a line may be there of a message that a
crash then kept back, but no message without its line. ``docs/policy.md`` describes the fields.
"""

import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.errors import StateDamaged
from common.files import write_atomically, writing_to
from edge_client.audit_lines import (
    FIRST,
    AuditLine,
    append_durably,
    files,
    from_bytes,
    held,
    last_rows,
    older_name,
    rows,
)
from edge_client.policy import AUDIT_LOG

HEAD = "audit.head"

MOST_BYTES = 16 * 2**20
"""A file that would grow beyond this is put aside and a new one begun."""

_LONGEST_RUN = 200


@dataclass(frozen=True)
class AuditReport:
    """What `verify` found.

    ``problems`` names every line that was changed, removed or moved. ``unfinished_bytes`` is the
    length of a last line that a crash cut off: its message was not sent. ``last_hash`` vouches for
    all lines before; a copy of it kept elsewhere shows later whether the log was written anew.
    """

    lines: int
    files: tuple[str, ...]
    last_hash: str
    unfinished_bytes: int
    problems: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {**asdict(self), "intact": not self.problems}


class AuditLog:
    """Appends to the log in a site's home folder, for any number of processes and threads."""

    def __init__(self, home: Path, most_bytes: int = MOST_BYTES) -> None:
        self._home = home
        self._path = home / AUDIT_LOG
        self._most_bytes = most_bytes

    def append(
        self,
        *,
        kind: str,
        run: str,
        round_number: int,
        size: int,
        sha256: str,
        contents: tuple[str, ...],
        code: str = "",
    ) -> AuditLine:
        """Write one line; when this returns it survives a power cut.

        A last line that a crash cut off is removed first, and a line says so. Raises StorageFull
        where it cannot be written, and StateDamaged where the log is not as it was left.
        """
        with held(self._home):
            removed = self._cut_unfinished()
            last = self._last()
            if last is not None and _head(self._home) != (last.line, last.hash):
                self._write_head(last)  # it was written just before a crash
            if removed:
                note = f"an unfinished last line of {removed} bytes was removed"
                last = self._write(last, kind="repair", payload_bytes=0, note=note)
            return self._write(
                last,
                kind=kind,
                run=run[:_LONGEST_RUN],
                round=round_number,
                payload_bytes=size,
                sha256=sha256,
                contents=contents,
                code=code,
            )

    def _write(self, last: AuditLine | None, **facts: Any) -> AuditLine:
        values = {"run": "", "round": 0, "sha256": "", "contents": (), "code": "", "note": ""}
        entry = AuditLine(
            **{**values, **facts},
            line=1 if last is None else last.line + 1,
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            previous=FIRST if last is None else last.hash,
        ).signed()
        content = entry.to_bytes()
        with writing_to(self._path):
            size = self._path.stat().st_size if self._path.exists() else 0
            if last is not None and size and size + len(content) > self._most_bytes:
                self._path.rename(self._home / older_name(last.line))
                size = 0
            append_durably(self._path, content, size)
        self._write_head(entry)
        return entry

    def _write_head(self, entry: AuditLine) -> None:
        head = {"lines": entry.line, "hash": entry.hash}
        write_atomically(self._home / HEAD, json.dumps(head).encode())

    def _cut_unfinished(self) -> int:
        """Remove a last line without its end; returns its length in bytes."""
        found = last_rows(self._path) if self._path.exists() else []
        if not found or found[-1].endswith(b"\n"):
            return 0
        with writing_to(self._path), self._path.open("r+b") as stream:
            stream.truncate(self._path.stat().st_size - len(found[-1]))
            os.fsync(stream.fileno())
        return len(found[-1])

    def _last(self) -> AuditLine | None:
        """The last line, None before the first; StateDamaged where it is not what was written."""
        last = None
        for path in reversed(files(self._home)):
            found = last_rows(path)
            if found:
                last = from_bytes(found[-1])
                if last is None:
                    raise self._damaged("its last line was changed")
                break
        problem = _end_problem(self._home, last)
        if problem:
            raise self._damaged(problem)
        return last

    def _damaged(self, what: str) -> StateDamaged:
        return StateDamaged(
            f"{self._path}: {what}, so nothing is sent; see 'fedqana client audit --verify', then "
            "restore the log or move all audit* files away to begin a new one"
        )


def entries(home: Path) -> list[AuditLine]:
    """All lines that are as they were written, oldest first."""
    with held(home, shared=True):
        found = [from_bytes(row) for path in files(home) for row in rows(path)]
    return [entry for entry in found if entry is not None]


def verify(home: Path) -> AuditReport:
    """Check every line, its place and its hash; changes nothing."""
    problems: list[str] = []
    expected, unfinished = 1, 0
    last: AuditLine | None = None
    follows = True
    with held(home, shared=True):
        found = files(home)
        for path, row in ((each, row) for each in found for row in rows(each)):
            if path.name == AUDIT_LOG and not row.endswith(b"\n"):
                unfinished = len(row)
                continue
            entry = from_bytes(row)
            if entry is None:
                problems.append(f"line {expected} was changed ({path.name})")
                expected, follows = expected + 1, False
                continue
            before = (FIRST if last is None else last.hash) if follows else entry.previous
            problems += _place_problem(entry, expected, before, path.name)
            last, expected, follows = entry, entry.line + 1, True
        at_end = _end_problem(home, last) if follows else ""
    return AuditReport(
        lines=expected - 1,
        files=tuple(path.name for path in found),
        last_hash=last.hash if last else "",
        unfinished_bytes=unfinished,
        problems=(*problems, *([at_end] if at_end else [])),
    )


def _place_problem(entry: AuditLine, expected: int, previous: str, file: str) -> list[str]:
    """What is wrong with where a whole line stands, after one whose hash is ``previous``."""
    if entry.line > expected:
        last = entry.line - 1
        which = f"line {last} is" if last == expected else f"lines {expected} to {last} are"
        return [f"{which} missing before line {entry.line} ({file})"]
    if entry.line < expected:
        return [f"line {entry.line} stands where line {expected} should ({file})"]
    if entry.previous != previous:
        return [f"line {max(1, entry.line - 1)} was replaced ({file})"]
    return []


def _head(home: Path) -> tuple[int, str] | None:
    """Number of lines and hash of the last one; None without a head, ValueError for a bad one."""
    try:
        head = json.loads((home / HEAD).read_bytes())
        return int(head["lines"]), str(head["hash"])
    except FileNotFoundError:
        return None
    except (KeyError, TypeError) as error:
        raise ValueError(f"{HEAD} has no lines or no hash") from error


def _end_problem(home: Path, last: AuditLine | None) -> str:
    """Whether lines are missing at the end, as the head tells; "" where all is well."""
    found = 0 if last is None else last.line
    try:
        head = _head(home)
    except ValueError:
        return f"{HEAD} was changed: lines may have been removed at the end"
    if head is None:  # a crash after the very first line is the one time that there is none
        return "" if found <= 1 else f"{HEAD} is missing: lines may have been removed at the end"
    lines, _ = head
    if last is None or found < lines:
        which = f"line {lines} is" if found + 1 == lines else f"lines {found + 1} to {lines} are"
        return f"{which} missing at the end"
    # One line more than the head knows is what a crash between the two leaves.
    if head not in ((found, last.hash), (found - 1, last.previous)):
        return f"the last line, {found}, is not the one that {HEAD} knows"
    return ""
