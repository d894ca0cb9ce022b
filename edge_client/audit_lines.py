"""The audit log's lines and files: how they are written, read and told from changed ones."""

import json
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from common.file_lock import file_lock
from common.files import sha256_of, sync_folder
from edge_client.policy import AUDIT_LOG

FIRST = "0" * 64
"""What the first line has in place of the hash of a line before."""

_LOCK = "audit.lock"
_OLDER = "audit-*.jsonl"
_LONGEST_LINE = 2**16
_WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class AuditLine:
    """One message that leaves the site; what was in it, not the thing itself.

    Parameters
    ----------
    line : int
        From 1, through all files.
    at : str
        UTC, ISO 8601.
    kind : str
        Which question it answers; "repair" for a note of the log itself.
    run, round : str, int
        Of the coordinator's question; "" and 0 where it named none.
    payload_bytes : int
        Of the payload: texts and arrays, without framing.
    sha256 : str
        Of the same bytes, in the order of `common.flower_records.payload_parts`.
    contents : tuple of str
        Categories of what it held, e.g. "weights".
    code : str
        Of an answer that only says why there is none, else "".
    note : str
        Of a "repair", else "".
    previous, hash : str
        Of the line before and of this one: SHA-256 of the line without its own hash.
    """

    line: int
    at: str
    kind: str
    run: str
    round: int
    payload_bytes: int
    sha256: str
    contents: tuple[str, ...]
    code: str
    note: str
    previous: str
    hash: str = ""

    def signed(self) -> "AuditLine":
        """The same line with its hash."""
        return replace(self, hash=_own_hash(self))

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {**asdict(self), "contents": list(self.contents)}

    def to_bytes(self) -> bytes:
        """As it stands in the file."""
        return _json(self.to_json()) + b"\n"


def from_bytes(row: bytes) -> AuditLine | None:
    """The line that was written as exactly these bytes, None for any others."""
    try:
        values = json.loads(row)
        entry = AuditLine(**{**values, "contents": tuple(values["contents"])})
        same = entry.to_bytes() == row and _own_hash(entry) == entry.hash
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return entry if same and type(entry.line) is int else None


def _own_hash(entry: AuditLine) -> str:
    values = entry.to_json()
    del values["hash"]
    return sha256_of(_json(values))


def _json(values: dict[str, Any]) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode()


# -- files ------------------------------------------------------------------------------------


def held(home: Path, *, shared: bool = False) -> AbstractContextManager[None]:
    """The log's lock; ``shared`` for looking only."""
    path = home / _LOCK
    if shared and not path.exists():  # nothing was ever written
        return nullcontext()
    busy = f"another process keeps {path} locked; end it, then try again"
    return file_lock(path, _WAIT_SECONDS, busy, shared=shared)


def files(home: Path) -> list[Path]:
    """The log's files, oldest first."""
    newest = home / AUDIT_LOG
    return [*sorted(home.glob(_OLDER)), *([newest] if newest.exists() else [])]


def older_name(last_line: int) -> str:
    """Name of a file that ends with this line and is not written to any more."""
    return f"audit-{last_line:012d}.jsonl"


def rows(path: Path) -> list[bytes]:
    """A file's lines with their ends; the last one has none where a crash cut it off."""
    *whole, rest = path.read_bytes().split(b"\n")
    return [*(row + b"\n" for row in whole), *([rest] if rest else [])]


def last_rows(path: Path) -> list[bytes]:
    """The last of `rows`, at least one where the file has any."""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - _LONGEST_LINE))
        *whole, rest = stream.read().split(b"\n")
    return [*(row + b"\n" for row in whole), *([rest] if rest else [])]


def append_durably(path: Path, content: bytes, size: int) -> None:
    """Append to a file of ``size`` bytes and to the disk; it is as before where that fails."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        written = 0
        while written < len(content):
            written += os.write(descriptor, content[written:])
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, size)
        raise
    finally:
        os.close(descriptor)
    if size == 0:
        sync_folder(path.parent)
