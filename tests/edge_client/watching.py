"""A watched folder in tests, and a journal as it stands behind the local service."""

import csv
import hashlib
import io
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.data.cases import LesionImage
from common.data.preparation import decode
from edge_client.case_journal import CaseJournal, LabelledCase
from edge_client.watched_folder import LearnOutcome, ScanReport, WatchSettings, scan_once

NOW = WatchSettings(settle=0.0)
CODES = ("nv", "mel")


def png(seed: int) -> bytes:
    """A small image."""
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def put(folder: Path, name: str, text: str | bytes, age: float = 60.0) -> Path:
    """Write a file that was last changed ``age`` seconds ago."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    changed = time.time() - age
    os.utime(path, (changed, changed))
    return path


def put_batch(folder: Path, name: str, images: int, first: int = 0) -> None:
    """A CSV file with so many images."""
    rows = []
    for i in range(first, first + images):
        put(folder, f"{i}.png", png(i))
        rows.append(f"{i}.png,{CODES[i % 2]},case-{i},lesion-{i}")
    put(folder, name, "\n".join(["image,dx,case_id,lesion_id", *rows]) + "\n")


@dataclass
class Learner:
    """Learns into a real journal, as durably as the service does; counts what it is handed."""

    path: Path
    calls: list[tuple[str, str, str, str]] = field(default_factory=list)
    fails: Exception | None = None
    outcome: LearnOutcome | None = None

    def __call__(self, image: bytes, code: str, case_id: str, lesion_id: str) -> LearnOutcome:
        self.calls.append((sha(image), code, case_id, lesion_id))
        if self.fails is not None:
            raise self.fails
        if self.outcome is not None:
            return self.outcome
        picture = decode(LesionImage("", "", "", "", "the picture", lambda: image))
        case = LabelledCase(case_id, lesion_id, code, 1, np.asarray(picture.resize((8, 8))))
        is_new = CaseJournal(self.path).append(case)
        return LearnOutcome("learned" if is_new else "duplicate")

    @property
    def learned(self) -> dict[str, str]:
        """Diagnoses by case id; every case once."""
        cases = list(CaseJournal(self.path, read_only=True).cases())
        found = {case.case_id: case.code for case in cases}
        assert len(found) == len(cases)
        return found


def scan(folder: Path, learner: Learner, settings: WatchSettings = NOW) -> ScanReport:
    return scan_once(folder, learner, settings)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def files(folder: Path) -> set[str]:
    """All files but the lock, by their paths from the folder."""
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}
    return found - {".fedqana-watch/lock"}


@contextmanager
def no_syncing() -> Iterator[None]:
    """Without waiting for the disk: a kill, other than a power cut, loses nothing of the system."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield
