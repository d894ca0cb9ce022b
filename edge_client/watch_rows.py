"""What the CSV files of a watched folder say, and the images that they name."""

import hashlib
import io
import json
import os
import stat
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.data.cases import LesionImage
from common.data.dicom import is_dicom
from common.data.preparation import decode
from common.data.tables import LABEL_COLUMNS, PATH_COLUMNS, ImageTable, TableRow
from common.errors import DataUnfit

CASE_COLUMNS = ("case", "case_id")
LESION_COLUMNS = ("lesion", "lesion_id")
PATIENT_COLUMNS = ("patient", "patient_id")

_LARGEST_IMAGE = 512 << 20


@dataclass(frozen=True)
class WatchedRow:
    """One confirmed case as a CSV lists it.

    Parameters
    ----------
    line : int
    image : str
        Path from the watched folder.
    diagnosis : str
        Class code, lower case.
    case, lesion : str
        As given; ``""`` where they are not. Patients take the place of lesions, as in training.
    values : dict of str to str
        All columns of the line.
    """

    line: int
    image: str
    diagnosis: str
    case: str
    lesion: str
    values: dict[str, str]

    @property
    def key(self) -> str:
        """Equal for rows that say the same."""
        facts = [self.image, self.diagnosis, self.case, self.lesion]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def rows_of(table: ImageTable) -> list[WatchedRow]:
    """The rows of a table that has the columns of `lists_images`."""
    return [_row(row) for row in table.rows]


def _row(row: TableRow) -> WatchedRow:
    return WatchedRow(
        line=row.line,
        image=row.first(PATH_COLUMNS).replace("\\", "/"),
        diagnosis=row.first(LABEL_COLUMNS).lower(),
        case=row.first(CASE_COLUMNS),
        lesion=row.first(PATIENT_COLUMNS) or row.first(LESION_COLUMNS),
        values=row.values,
    )


def contradictions(rows: Sequence[WatchedRow]) -> dict[str, str]:
    """Keys of rows that give one case, or one image, several diagnoses, with the reason."""
    groups: dict[tuple[str, str], list[WatchedRow]] = defaultdict(list)
    for row in rows:
        groups[("image", os.path.normpath(row.image))].append(row)
        if row.case:
            groups[("case", row.case)].append(row)
    found: dict[str, str] = {}
    for (what, _), group in groups.items():
        if len({row.diagnosis for row in group}) > 1:
            lines = ", ".join(str(row.line) for row in group[:5])
            reason = f"lines {lines} give one {what} different diagnoses; leave the right one"
            found |= {row.key: reason for row in group}
    return found


def read_image(folder: Path, named: str, settle: float) -> bytes | None:
    """The bytes of an image below ``folder``; None where it is absent or still being written.

    Parameters
    ----------
    folder : Path
        Resolved: without links.
    named : str
        Path from it, as in a row.
    settle : float
        Seconds for which a file must not have changed.

    Raises
    ------
    DataUnfit
        The path leads out of the folder, also by a link, or to something else than a file.
    """
    if not named:
        raise DataUnfit("no image is named")
    if "\0" in named or not _is_inside(os.path.normpath(folder / named), folder):
        raise DataUnfit("the path leads out of the watched folder; give it from there")
    path = os.path.realpath(folder / named)
    if not _is_inside(path, folder):
        raise DataUnfit("the path leads out of the watched folder by a link; copy the image there")
    try:
        # Without waiting for whoever should write into a named pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return _read_whole(descriptor, folder, settle)
        finally:
            os.close(descriptor)
    except OSError:
        return None


def _read_whole(descriptor: int, folder: Path, settle: float) -> bytes | None:
    """As `read_image`, of an open file."""
    before = os.fstat(descriptor)
    if not stat.S_ISREG(before.st_mode):
        raise DataUnfit("what is named as image is no file")
    if not _is_inside(os.path.realpath(f"/proc/self/fd/{descriptor}"), folder):
        raise DataUnfit("the path leads out of the watched folder by a link; copy the image there")
    if before.st_size > _LARGEST_IMAGE:
        raise DataUnfit(f"the image has more than {_LARGEST_IMAGE >> 20} MiB; scale it down")
    if before.st_size == 0 or is_changing(before.st_mtime, settle):
        return None
    with os.fdopen(descriptor, "rb", closefd=False) as stream:
        content = stream.read()
    after = os.fstat(descriptor)
    whole = (after.st_size, after.st_mtime_ns) == (len(content), before.st_mtime_ns)
    return content if whole else None


def is_changing(changed: float, settle: float) -> bool:
    """Whether a file with this time of change is less than ``settle`` seconds old.

    A time further ahead than that is of a clock that is wrong, and says nothing.
    """
    return abs(time.time() - changed) < settle


def as_sent(content: bytes) -> bytes:
    """The encoded image as it is handed on: of DICOM the pixels only, as PNG.

    Raises DataUnreadable or DataUnfit for DICOM that is not taken.
    """
    if not is_dicom(content):
        return content
    picture = decode(LesionImage("", "", "", "", "the image", lambda: content))
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def _is_inside(path: str, folder: Path) -> bool:
    return Path(path).is_relative_to(folder) and Path(path) != folder
