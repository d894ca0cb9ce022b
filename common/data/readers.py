"""Labelled image folders of three layouts, read as one list of lesion images."""

import os
from collections import Counter
from functools import partial
from pathlib import Path

from common.classes import ClassMap
from common.data.cases import LesionImage
from common.data.image_files import (
    ImageFile,
    ImageIndex,
    holds_cases,
    image_files,
    in_archive,
    index_of,
    is_not_the_users,
    on_disk,
    read_file,
)
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

_TABLE_SUFFIXES = {".csv", ".tab", ".tsv", ".txt", ""}
_HAM10000_TABLE = "ham10000_metadata"
_Named = list[tuple[str, LesionImage]]
"""Images, each with the place where its label stands."""


def read_lesion_images(
    folder: Path, classes: ClassMap, *, strict: bool = True, for_training: bool = True
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
    for_training : bool
        False lets a class folder be empty: a model can be judged without cases of a class.

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
        A table that cannot be parsed, one image id or file twice, or a folder that cannot be
        listed.
    DataUnfit
        A class folder without any image, where it is for training.
    """
    folder, entries = _entries_of(folder)
    images = (
        _from_ham10000(folder, entries, strict)
        or _from_table(folder, entries, strict, _class_folders(entries, classes))
        or _from_class_folders(folder, entries, classes, strict and for_training)
    )
    if not images:
        raise DataNotFound(f"no labelled images in {folder}; accepted is {LAYOUTS}")
    if strict:
        _refuse_unknown_labels(images, classes)
        _refuse_repetitions(folder, [image for _, image in images])
    return sorted((image for _, image in images), key=lambda i: (i.image_id, i.location))


def _entries_of(folder: Path) -> tuple[Path, list[Path]]:
    """The resolved folder, so that other processes find its files too, and what is in it."""
    try:
        if not folder.is_dir():
            what = f"{folder} is a file, not a folder" if folder.exists() else f"no folder {folder}"
            raise DataNotFound(f"{what}; accepted is {LAYOUTS}")
        folder = folder.resolve()
        entries = sorted(e for e in folder.iterdir() if not is_not_the_users(e.name))
        [entry.is_dir() for entry in entries]  # a folder can be listed that cannot be entered
        return folder, entries
    except (OSError, ValueError) as error:
        why = os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)
        raise DataUnreadable(f"cannot list {folder}: {why}; correct its permissions") from error


def _class_folders(entries: list[Path], classes: ClassMap) -> list[Path]:
    return [e for e in entries if e.is_dir() and e.name.lower() in classes]


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
    index = index_of(folder, entries)
    for archive in entries:
        if archive.suffix.lower() == ".zip" and holds_cases(archive):
            for stem, file in in_archive(archive):
                # A file that was unpacked already comes before the archive's copy.
                index.by_stem.setdefault(stem, [file])
    return _images_of_rows(folder, table, index, strict)


def _from_table(
    folder: Path, entries: list[Path], strict: bool, class_folders: list[Path]
) -> _Named:
    """A hospital's own CSV; empty where the folder has none that lists images."""
    fitting, unfit = [], []
    for entry in entries:
        if entry.is_file() and entry.suffix.lower() == ".csv":
            try:
                table = read_table(entry)
            except DataUnreadable as error:
                unfit.append(error)
                continue
            if lists_images(table):
                fitting.append(table)
            else:
                unfit.append(DataUnreadable(missing_columns(table)))
    if len(fitting) > 1:
        names = ", ".join(t.path.name for t in fitting)
        raise DataUnreadable(f"{folder} has several tables of images ({names}); leave one there")
    if fitting:
        return _images_of_rows(folder, fitting[0], index_of(folder, entries), strict)
    if unfit and not class_folders:  # beside class folders a table may be about anything
        raise unfit[0]
    return []


def _from_class_folders(
    folder: Path, entries: list[Path], classes: ClassMap, strict: bool
) -> _Named:
    """One folder per class; empty where no folder carries the code of a class."""
    if not _class_folders(entries, classes):
        return []
    named = []
    for class_folder in (e for e in entries if e.is_dir()):
        if not holds_cases(class_folder) and class_folder.name.lower() not in classes:
            continue  # lesion masks
        for path in image_files(class_folder):
            file, name = on_disk(path, folder), path.relative_to(folder).as_posix()
            label = class_folder.name.lower()
            image = LesionImage(name, name, label, "", file.location, file.read)
            named.append((str(class_folder), image))
    empty = empty_class_folders(folder, classes) if strict and named else []
    if empty:
        raise DataUnfit(
            f"{folder / empty[0]} holds no image; add images of the class or remove the folder"
        )
    return named


def empty_class_folders(folder: Path, classes: ClassMap) -> list[str]:
    """Names of folders below ``folder`` that carry a class code but hold no image."""
    folder, entries = _entries_of(folder)
    return [e.name for e in _class_folders(entries, classes) if not any(image_files(e))]


def _images_of_rows(folder: Path, table: ImageTable, index: ImageIndex, strict: bool) -> _Named:
    """Turn a table's rows into images, whose files ``index`` finds."""
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
        file = index.find(path)
        if file is None:
            absent.append((row.line, path))
            file = ImageFile((), f"{folder.name}/{path}", partial(read_file, folder / path))
        image_id = row.values.get("image_id") or path
        lesion = row.values.get("lesion_id", "")
        unit = row.values.get("patient_id") or patients.get(lesion) or lesion or image_id
        label = row.first(LABEL_COLUMNS).lower()
        source = row.first(SOURCE_COLUMNS)
        image = LesionImage(image_id, unit, label, source, file.location, file.read)
        images.append((f"{table.path} line {row.line}", image))
    if strict and absent:
        line, path = absent[0]
        raise DataNotFound(
            f"{table.path} names {len(absent)} of {len(images)} images that are not in {folder} "
            f"(or there under two paths), first {path!r} in line {line}; add them or remove "
            "their lines"
        )
    return images


def _refuse_unknown_labels(images: _Named, classes: ClassMap) -> None:
    unknown = [(where, image.label) for where, image in images if image.label not in classes]
    if unknown:
        where, label = unknown[0]
        more = f" ({len(unknown) - 1} more images have unknown labels)" if len(unknown) > 1 else ""
        raise UnknownLabel(
            f"{where}: label {label!r} is not one of {', '.join(classes.codes)}{more}; correct "
            "it or add the class to the map"
        )


def _refuse_repetitions(folder: Path, images: list[LesionImage]) -> None:
    for what, names in (
        ("image", Counter(i.image_id for i in images)),
        ("file", Counter(i.location for i in images)),
    ):
        name, times = names.most_common(1)[0]
        if times > 1:
            raise DataUnreadable(
                f"{folder}: {what} {name!r} is listed {times} times; leave one line for it"
            )
