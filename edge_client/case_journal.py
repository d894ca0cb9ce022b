"""Newly labelled cases of a site and corrections of their labels, on disk before acknowledged."""

import io
import json
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from common.errors import StateDamaged
from common.files import sync_folder, writing_to

_MAGIC = b"CASE"
_HEADER = struct.Struct("<4sIII")  # magic, payload length, its crc, crc of these three


@dataclass(frozen=True)
class LabelledCase:
    """One newly labelled image.

    ``code`` is the class code, ``round`` the number of the round in which the case arrived,
    ``image`` uint8 (height, width, 3).
    """

    case_id: str
    lesion_id: str
    code: str
    round: int
    image: NDArray[np.uint8]

    @property
    def facts(self) -> "CaseFacts":
        """All of it but the image."""
        return CaseFacts(self.case_id, self.lesion_id, self.code, self.round)


@dataclass(frozen=True)
class CaseFacts:
    """A case without its image, as `LabelledCase`."""

    case_id: str
    lesion_id: str
    code: str
    round: int


@dataclass(frozen=True)
class _Correction:
    """A case's label was wrong: ``code`` is the right one, None where it is to be forgotten."""

    case_id: str
    code: str | None


class CaseJournal:
    """Append-only file of cases and of corrections, for one process at a time.

    A record is a header with length and checksums, then the case, or a correction of an earlier
    one; what is read is the cases as they were last corrected. A record cut short by a
    crash was never acknowledged and is removed on opening; damage before the last record is
    StateDamaged.

    Parameters
    ----------
    path : Path
        Made where it does not exist.
    read_only : bool
        Change nothing: what another process is writing is left alone, and not seen.

    Attributes
    ----------
    corrections : int
        How many corrections were written so far.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._path = path
        if not read_only:
            with writing_to(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
                sync_folder(path.parent)
        self._starts: dict[str, int] = {}
        self._facts: dict[str, CaseFacts] = {}
        self._codes: dict[str, str | None] = {}
        self.corrections = 0
        self._length = 0
        for end, payload in self._records():
            record = _decoded(payload)
            if isinstance(record, _Correction):
                self._codes[record.case_id] = record.code
                self.corrections += 1
            else:
                self._starts[record.case_id] = self._length
                self._facts[record.case_id] = record.facts
            self._length = end
        if not read_only and path.stat().st_size > self._length:
            with writing_to(path), path.open("r+b") as stream:
                stream.truncate(self._length)
                os.fsync(stream.fileno())

    def __len__(self) -> int:
        return len(self._starts)

    def __contains__(self, case_id: object) -> bool:
        return case_id in self._starts

    def append(self, case: LabelledCase) -> bool:
        """Write ``case`` so that it survives a power cut; False where its id is known already.

        A known case keeps its first label. Raises StorageFull, and then the case is not kept.
        """
        if case.case_id in self._starts:
            return False
        self._starts[case.case_id] = self._write(_encoded(case))
        self._facts[case.case_id] = case.facts
        return True

    def correct(self, case_id: str, code: str | None) -> bool:
        """Write down a case's right label, or None to forget it; durable like `append`.

        False where nothing changes; KeyError where the journal has no such case.
        """
        before = self.case(case_id)
        if code == (None if before is None else before.code):
            return False
        self._write(json.dumps({"correct": case_id, "code": code}).encode())
        self._codes[case_id] = code
        self.corrections += 1
        return True

    def _write(self, payload: bytes) -> int:
        """Append a record; returns where it starts."""
        fields = _HEADER.pack(_MAGIC, len(payload), zlib.crc32(payload), 0)[:-4]
        record = fields + struct.pack("<I", zlib.crc32(fields)) + payload
        with writing_to(self._path), self._path.open("r+b") as stream:
            stream.seek(self._length)  # over what a write that failed may have left
            stream.write(record)
            stream.truncate()
            stream.flush()
            os.fsync(stream.fileno())
        start = self._length
        self._length += len(record)
        return start

    def case(self, case_id: str) -> LabelledCase | None:
        """The case of this id, None where it is forgotten; KeyError where there never was one."""
        with self._path.open("rb") as stream:
            stream.seek(self._starts[case_id])
            payload = _next_record(stream)
        if payload is None:
            raise StateDamaged(
                f"{self._path} was changed at byte {self._starts[case_id]}; restore it from a "
                "backup"
            )
        return self._corrected(_decoded(payload))

    def cases(self, up_to_round: int | None = None) -> Iterator[LabelledCase]:
        """Cases in order of arrival, those of later rounds than ``up_to_round`` left out.

        Read one after the other: all pictures of years would not fit a small machine's memory.
        """
        for end, payload in self._records():
            if end > self._length:
                return
            case = self._corrected(_decoded(payload))
            if case is not None and (up_to_round is None or case.round <= up_to_round):
                yield case

    def facts(self, up_to_round: int | None = None) -> list[CaseFacts]:
        """What `cases` would give, without the images."""
        return [
            replace(known, code=code)
            for name, known in self._facts.items()
            if (code := self._codes.get(name, known.code)) is not None
            and (up_to_round is None or known.round <= up_to_round)
        ]

    def _corrected(self, record: "LabelledCase | _Correction") -> LabelledCase | None:
        """A case as it counts now; None for a correction and for a case that is forgotten."""
        if isinstance(record, _Correction):
            return None
        code = self._codes.get(record.case_id, record.code)
        return None if code is None else replace(record, code=code)

    def _records(self) -> Iterator[tuple[int, bytes]]:
        """Whole records as (end position, payload); StateDamaged where one follows a broken one."""
        try:
            stream = self._path.open("rb")
        except FileNotFoundError:  # read only, and nothing was learned yet
            return
        with stream:
            position = 0
            while (payload := _next_record(stream)) is not None:
                position += _HEADER.size + len(payload)
                yield position, payload
            stream.seek(position)
            _require_no_record(stream.read(), position, self._path)


def _next_record(stream: BinaryIO) -> bytes | None:
    """Payload of the whole record where ``stream`` stands, else None."""
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    magic, length, crc, header_crc = _HEADER.unpack(header)
    if magic != _MAGIC or zlib.crc32(header[:-4]) != header_crc:
        return None
    payload = stream.read(length)
    return payload if len(payload) == length and zlib.crc32(payload) == crc else None


def _require_no_record(rest: bytes, position: int, path: Path) -> None:
    """StateDamaged where a whole record follows a broken one, which is at ``position``."""
    later = rest.find(_MAGIC, 1)
    while later >= 0:
        if _next_record(io.BytesIO(rest[later:])) is not None:
            raise StateDamaged(
                f"{path} is damaged at byte {position}; restore it from a backup, or move it away "
                "to go on without the cases in it"
            )
        later = rest.find(_MAGIC, later + 1)


def _encoded(case: LabelledCase) -> bytes:
    image = np.ascontiguousarray(case.image, dtype=np.uint8)
    facts = [case.case_id, case.lesion_id, case.code, case.round, list(image.shape)]
    return json.dumps(facts).encode() + b"\n" + image.tobytes()


def _decoded(payload: bytes) -> LabelledCase | _Correction:
    facts, _, pixels = payload.partition(b"\n")
    if facts.startswith(b"{"):
        correction = json.loads(facts)
        return _Correction(correction["correct"], correction["code"])
    case_id, lesion_id, code, round_number, shape = json.loads(facts)
    image = np.frombuffer(pixels, np.uint8).reshape(shape)
    return LabelledCase(case_id, lesion_id, code, round_number, image)
