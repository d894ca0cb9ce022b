"""Labelled image folders of three layouts, read as one list of lesion images."""

import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path

from common.classes import ClassMap
from common.data.cases import LesionImage
from common.data.tables import (
    LABEL_COLUMNS,
    PATH_COLUMNS,
    SOURCE_COLUMNS,
    ImageTable,
    lists_images,
    missing_columns,
    read_table,
)
from common.errors import DataNotFound, DataUnfit, DataUnreadable, UnknownLabel

LAYOUTS = (
    "HAM10000's download (HAM10000_metadata.csv or .tab beside HAM10000_images_part_1 and _2 as "
    "folders or .zip files), a .csv with an image path and a diagnosis column, or one folder of "
    "images per class code"
)
"""What a folder may look like, for messages."""

_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png"}
_TABLE_SUFFIXES = {".csv", ".tab", ".tsv", ".txt", ""}
_HAM10000_TABLE = "ham10000_metadata"
_NOT_IMAGES_OF_CASES = ("segmentation", "mask")

_Reader = Callable[[], bytes]
_Named = list[tuple[str, LesionImage]]
"""Images, each with the place where its label stands."""


def read_lesion_images(
    folder: Path, classes: ClassMap, *, strict: bool = True
) -> list[LesionImage]:
    """List the labelled images of ``folder``, whichever of the accepted layouts it has.

    Files are found and labels are read; no image is opened before its ``read`` is called.
    ``read`` raises DataNotFound or DataUnreadable, can be pickled, and is safe in other processes.

    Parameters
    ----------
    folder : Path
        Folder in one of the layouts of `LAYOUTS`, tried in that order.
    classes : ClassMap
        The labels that may occur, compared case-insensitively.
    strict : bool
        False keeps unknown labels, repeated ids and files that are not there (their ``read``
        raises DataNotFound), so that the data check can report all of them.

    Returns
    -------
    list of LesionImage
        Sorted by image id. Where a table has patient ids they are the lesion ids, so that no
        patient ever stands on two sides of a split.

    Raises
    ------
    DataNotFound
        No such folder, no accepted layout, or a table naming files that are not there.
    UnknownLabel
        A label outside ``classes``; the message names its file and line.
    DataUnreadable
        A table that cannot be parsed, or one image id twice.
    DataUnfit
        A class folder without any image.
    """
    if not folder.is_dir():
        raise DataNotFound(f"no folder {folder}; accepted is {LAYOUTS}")
    folder = folder.resolve()  # so that files are found from a process in another folder too
    try:
        entries = sorted(e for e in folder.iterdir() if not e.name.startswith((".", "__")))
    except OSError as error:
        raise DataUnreadable(f"cannot list {folder}: {os.strerror(error.errno or 0)}") from error

    images = (
        _from_ham10000(folder, entries, strict)
        or _from_table(folder, entries, strict)
        or _from_class_folders(folder, entries, classes, strict)
    )
    if not images:
        raise DataNotFound(f"no labelled images in {folder}; accepted is {LAYOUTS}")
    if strict:
        _refuse_unknown_labels(images, classes)
        _refuse_repeated_ids(folder, [image for _, image in images])
    return sorted((image for _, image in images), key=lambda i: (i.image_id, i.location))


def _from_ham10000(folder: Path, entries: list[Path], strict: bool) -> _Named:
    """HAM10000 as Dataverse or Kaggle hands it out; empty where its table is not there."""
    tables = [
        e
        for e in entries
        if e.is_file() and e.stem.lower() == _HAM10000_TABLE and e.suffix.lower() in _TABLE_SUFFIXES
    ]
    if not tables:
        return []
    table = read_table(tables[0])
    if not lists_images(table):
        raise DataUnreadable(missing_columns(table))
    # Kaggle's copy unpacks every image twice, in folders that differ in case only.
    places = {name: found[:1] for name, found in _image_files_by_name(entries).items()}
    for archive in entries:
        if archive.suffix.lower() == ".zip" and _holds_cases(archive):
            for member in _image_members(archive):
                place = (f"{archive.name}:{member}", partial(_read_member, archive, member))
                # A file that was unpacked already comes before the archive's copy.
                places.setdefault(Path(member).stem.lower(), [place])
    return _images_of_rows(folder, table, places, strict)


def _from_table(folder: Path, entries: list[Path], strict: bool) -> _Named:
    """A hospital's own CSV; empty where the folder has none that lists images."""
    tables = [read_table(e) for e in entries if e.is_file() and e.suffix.lower() == ".csv"]
    fitting = [t for t in tables if lists_images(t)]
    if len(fitting) > 1:
        names = ", ".join(t.path.name for t in fitting)
        raise DataUnreadable(f"{folder} has several tables of images ({names}); leave one there")
    if fitting:
        return _images_of_rows(folder, fitting[0], _image_files_by_name(entries), strict)
    if tables and not any(e.is_dir() for e in entries):
        raise DataUnreadable(missing_columns(tables[0]))
    return []


def _from_class_folders(
    folder: Path, entries: list[Path], classes: ClassMap, strict: bool
) -> _Named:
    """One folder per class; empty where no folder carries the code of a class."""
    folders = [e for e in entries if e.is_dir()]
    if not any(f.name.lower() in classes for f in folders):
        return []
    named = []
    for class_folder in folders:
        for file in _image_files(class_folder):
            path = file.relative_to(folder).as_posix()
            label, location = class_folder.name.lower(), f"{folder.name}/{path}"
            image = LesionImage(path, path, label, "", location, partial(_read_file, file))
            named.append((str(class_folder), image))
    empty = empty_class_folders(folder, classes) if strict and named else []
    if empty:
        raise DataUnfit(
            f"{folder / empty[0]} holds no image; add images of the class or remove the folder"
        )
    return named


def empty_class_folders(folder: Path, classes: ClassMap) -> list[str]:
    """Names of folders below ``folder`` that carry a class code but hold no image."""
    return sorted(
        e.name
        for e in folder.iterdir()
        if e.is_dir() and e.name.lower() in classes and not any(_image_files(e))
    )


def _images_of_rows(
    folder: Path, table: ImageTable, places: dict[str, list[tuple[str, _Reader]]], strict: bool
) -> _Named:
    """Turn a table's rows into images; ``places`` finds files by their name without suffix."""
    if not table.rows:
        raise DataNotFound(f"{table.path} lists no images")
    patients = {
        row.values["lesion_id"]: row.values["patient_id"]
        for row in table.rows
        if row.values.get("lesion_id") and row.values.get("patient_id")
    }
    images, absent = [], []
    for row in table.rows:
        path = row.first(PATH_COLUMNS).replace("\\", "/")
        if not path:
            raise DataUnreadable(f"{table.path} line {row.line}: no image is named")
        found = _find(folder, path, places)
        if found is None:
            absent.append((row.line, path))
            found = (f"{folder.name}/{path}", partial(_read_file, folder / path))
        location, read = found
        image_id = row.values.get("image_id") or path
        lesion = row.values.get("lesion_id", "")
        unit = row.values.get("patient_id") or patients.get(lesion) or lesion or image_id
        label = row.first(LABEL_COLUMNS).lower()
        source = row.first(SOURCE_COLUMNS)
        image = LesionImage(image_id, unit, label, source, location, read)
        images.append((f"{table.path} line {row.line}", image))
    if strict and absent:
        line, path = absent[0]
        raise DataNotFound(
            f"{table.path} names {len(absent)} of {len(images)} images that are not in {folder} "
            f"(or there under two paths), first {path!r} in line {line}; add them or remove "
            "their lines"
        )
    return images


def _find(
    folder: Path, path: str, places: dict[str, list[tuple[str, _Reader]]]
) -> tuple[str, _Reader] | None:
    """Location and reader of an image named by path, by file name, or by name without suffix."""
    file = folder / path
    if Path(path).suffix.lower() in _IMAGE_SUFFIXES:
        if file.is_file():
            return f"{folder.name}/{path}", partial(_read_file, file)
        name = Path(path).stem
    else:
        name = Path(path).name
    found = places.get(name.lower(), [])
    return found[0] if len(found) == 1 else None


def _image_files_by_name(entries: list[Path]) -> dict[str, list[tuple[str, _Reader]]]:
    """Every image file in and below ``entries`` by its lower-case name without suffix."""
    places: dict[str, list[tuple[str, _Reader]]] = {}
    for entry in filter(_holds_cases, entries):
        files = _image_files(entry) if entry.is_dir() else [entry]
        for file in files:
            if file.suffix.lower() in _IMAGE_SUFFIXES:
                location = file.relative_to(entry.parent.parent).as_posix()
                place = (location, partial(_read_file, file))
                places.setdefault(file.stem.lower(), []).append(place)
    return places


def _holds_cases(entry: Path) -> bool:
    """Whether a folder, archive or file may hold case images, not HAM10000's lesion masks."""
    return not any(word in entry.name.lower() for word in _NOT_IMAGES_OF_CASES)


def _image_files(folder: Path) -> Iterator[Path]:
    """Image files below ``folder``, sorted, hidden ones left out."""
    for file in sorted(folder.rglob("*")):
        hidden = file.name.startswith(".")
        if file.suffix.lower() in _IMAGE_SUFFIXES and not hidden and file.is_file():
            yield file


def _image_members(archive: Path) -> list[str]:
    """Names of the image files in a zip archive; raises DataUnreadable for a broken one."""
    return [
        name
        for name in _open_archive(archive, os.getpid()).namelist()
        if Path(name).suffix.lower() in _IMAGE_SUFFIXES and not name.startswith("__MACOSX")
    ]


@lru_cache(maxsize=16)
def _open_archive(path: Path, process: int) -> zipfile.ZipFile:
    """Open a zip archive once per process: a forked child must not share its file offset."""
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError:
        raise DataNotFound(f"{path} is no longer there") from None
    except (OSError, zipfile.BadZipFile) as error:
        raise DataUnreadable(f"cannot open {path}: {error}; copy or download it again") from error


def _read_member(archive: Path, member: str) -> bytes:
    try:
        return _open_archive(archive, os.getpid()).read(member)
    except (OSError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataUnreadable(
            f"cannot read {member} in {archive}: {error}; copy or download the archive again"
        ) from error


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataNotFound(f"no image {path}") from None
    except OSError as error:
        raise DataUnreadable(f"cannot read {path}: {os.strerror(error.errno or 0)}") from error


def _refuse_unknown_labels(images: _Named, classes: ClassMap) -> None:
    unknown = [(where, image.label) for where, image in images if image.label not in classes]
    if unknown:
        where, label = unknown[0]
        more = f" ({len(unknown) - 1} more images have unknown labels)" if len(unknown) > 1 else ""
        raise UnknownLabel(
            f"{where}: label {label!r} is not one of {', '.join(classes.codes)}{more}; correct "
            "it or add the class to the map"
        )


def _refuse_repeated_ids(folder: Path, images: list[LesionImage]) -> None:
    image_id, times = Counter(i.image_id for i in images).most_common(1)[0]
    if times > 1:
        raise DataUnreadable(
            f"{folder}: image {image_id!r} is listed {times} times; leave one line for it"
        )
