"""What a site has and what is wrong with it, before anything is trained."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.classes import ClassMap
from common.data.cases import LesionImage
from common.data.image_files import OTHER_IMAGE_SUFFIXES, files_below
from common.data.preparation import decode
from common.data.readers import empty_class_folders, read_lesion_images
from common.data.splits import lesions_by_class
from common.errors import DataError
from common.files import sha256_of

SMALLEST_SIDE = 32
"""Pixels; a shorter side carries too little for a 64 x 64 input."""

COLOUR_THRESHOLD = 3.5
"""Robust z-score beyond which an image stands out (Iglewicz and Hoaglin 1993); in 8,584 images
of HAM10000 it names 18."""

_FEWEST_FOR_COLOUR = 20
_MAD_TO_SD = 1.4826
_SMALLEST_SPREAD = 1.0
_LISTED = 10

_COLOURS = ("red", "green", "blue", "saturation")


@dataclass(frozen=True)
class ClassCount:
    """Number of images and of lesions of one class."""

    images: int
    lesions: int


@dataclass
class DataReport:
    """The outcome of a check.

    Parameters
    ----------
    folder : str
    images, lesions : int
        Of all labels, readable or not.
    classes : dict of str to ClassCount
        Every class of the map, in its order, also those without images.
    problems : list of str
        One line each; training on the data would be wrong or fail.
    notes : list of str
        One line each; worth knowing.
    unknown_labels : dict of str to int
        Number of images of each label outside the class map.
    unreadable, tiny, colour_outliers : list of str
        Image ids.
    duplicates : list of list of str
        Ids of images with byte-identical files.
    repeated_ids : list of str
    lesions_with_several_labels : list of str
        Lesion ids.
    """

    folder: str
    images: int
    lesions: int
    classes: dict[str, ClassCount]
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unknown_labels: dict[str, int] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    tiny: list[str] = field(default_factory=list)
    colour_outliers: list[str] = field(default_factory=list)
    duplicates: list[list[str]] = field(default_factory=list)
    repeated_ids: list[str] = field(default_factory=list)
    lesions_with_several_labels: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The report as plain dicts and lists."""
        return asdict(self)


@dataclass(frozen=True)
class _Scan:
    """What one pass over all files found; arrays and lists are by position in the images."""

    hashes: list[str]
    errors: dict[int, str]
    sizes: dict[int, tuple[int, int]]
    colours: dict[int, NDArray[np.float64]]


def check_folder(folder: Path, classes: ClassMap) -> DataReport:
    """Read every image of ``folder`` and report what it holds and what is wrong.

    Problems are: files that are absent or unreadable, shorter sides below `SMALLEST_SIDE`, labels
    outside ``classes``, a class folder without images, an image id or a file listed twice,
    identical files in several lesions or under several labels (they would stand on both sides of
    a split), and fewer than two classes. Notes are: identical files of one lesion, images whose
    colours stand out (`COLOUR_THRESHOLD`), classes without images or with a single lesion, images
    of other formats, lesions with several labels (usual where patient ids take the place of
    lesion ids).

    Parameters
    ----------
    folder : Path
        In one of the layouts that `common.data.readers.read_lesion_images` accepts.
    classes : ClassMap

    Returns
    -------
    DataReport

    Raises
    ------
    DataNotFound, DataUnreadable
        Only where there is nothing to check: no such folder, no accepted layout, a broken table.
    """
    images = read_lesion_images(folder, classes, strict=False)
    lesions = lesions_by_class(images)
    per_label = Counter(image.label for image in images)
    report = DataReport(
        folder=str(folder),
        images=len(images),
        lesions=sum(map(len, lesions.values())),
        classes={c: ClassCount(per_label[c], len(lesions.get(c, []))) for c in classes.codes},
        unknown_labels={k: n for k, n in sorted(per_label.items()) if k not in classes},
    )
    _check_labels(report, images, classes)
    scan = _scan(images)
    _check_files(report, images, scan)
    _check_duplicates(report, images, scan)
    _check_colours(report, images, scan)
    return report


def _scan(images: Sequence[LesionImage]) -> _Scan:
    """Read and decode each image once, one at a time."""
    scan = _Scan([], {}, {}, {})
    for i, image in enumerate(images):
        try:
            content = image.read()
        except DataError as error:
            scan.hashes.append("")
            scan.errors[i] = str(error)
            continue
        scan.hashes.append(sha256_of(content))
        try:
            picture = decode(image, content)
        except DataError as error:
            scan.errors[i] = str(error)
            continue
        scan.sizes[i] = picture.size
        scan.colours[i] = _colour_statistics(np.asarray(picture.resize((32, 32))))
    return scan


def _colour_statistics(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean red, green, blue and saturation (as in HSV), all 0..255, shape (4,)."""
    values = pixels.reshape(-1, 3).astype(np.float64)
    highest, lowest = values.max(axis=1), values.min(axis=1)
    saturation = 255 * (highest - lowest) / np.maximum(highest, 1)
    return np.append(values.mean(axis=0), saturation.mean())


def _check_labels(report: DataReport, images: Sequence[LesionImage], classes: ClassMap) -> None:
    for label, n in report.unknown_labels.items():
        first = next(i for i in images if i.label == label)
        report.problems.append(
            f"label {label!r} of {_count(n, 'image')} is not one of {', '.join(classes.codes)}, "
            f"first {first.location}"
        )
    if images and all(image.lesion_id == image.image_id for image in images):
        report.notes.append(
            "no lesion ids: every image counts as its own lesion; where several images show one "
            "lesion, list them in a CSV with lesion_id, or they may stand on both sides of a split"
        )
    listed = Counter(image.location for image in images)
    twice = sorted(location for location, n in listed.items() if n > 1)
    if twice:
        report.problems.append(f"files listed more than once: {_some(twice)}")
    folder = Path(report.folder)
    others = [
        f.relative_to(folder).as_posix()
        for f in files_below(folder)
        if f.suffix.lower() in OTHER_IMAGE_SUFFIXES
    ]
    if others:
        report.notes.append(
            f"images that are neither JPEG, PNG nor DICOM are left out: {_some(others)}"
        )
    for name in empty_class_folders(folder, classes):
        report.problems.append(f"class folder {name} holds no image")
    present = [c for c, count in report.classes.items() if count.images]
    if len(present) < 2:
        report.problems.append(
            f"images of {_count(len(present), 'class', 'classes')}; training needs at least two"
        )
    for code, count in report.classes.items():
        if count.images == 0:
            report.notes.append(f"class {code} has no images")
        elif count.lesions == 1:
            report.notes.append(
                f"class {code} has a single lesion: it goes to training and is not tested"
            )
    repeated = Counter(image.image_id for image in images)
    report.repeated_ids = sorted(i for i, n in repeated.items() if n > 1)
    if report.repeated_ids:
        report.problems.append(f"image ids listed more than once: {_some(report.repeated_ids)}")
    labels: dict[str, set[str]] = defaultdict(set)
    for image in images:
        labels[image.lesion_id].add(image.label)
    report.lesions_with_several_labels = sorted(k for k, v in labels.items() if len(v) > 1)
    if report.lesions_with_several_labels:
        report.notes.append(
            "lesions (or patients) with several labels, split by the most frequent one: "
            f"{_some(report.lesions_with_several_labels)}"
        )


def _check_files(report: DataReport, images: Sequence[LesionImage], scan: _Scan) -> None:
    report.unreadable = [images[i].image_id for i in scan.errors]
    report.problems += list(scan.errors.values())[:_LISTED]
    if len(scan.errors) > _LISTED:
        more = _count(len(scan.errors) - _LISTED, "more file")
        report.problems.append(f"{more} absent or unreadable")
    tiny = [i for i, size in scan.sizes.items() if min(size) < SMALLEST_SIDE]
    report.tiny = [images[i].image_id for i in tiny]
    if tiny:
        places = [f"{images[i].location} ({scan.sizes[i][0]} x {scan.sizes[i][1]})" for i in tiny]
        report.problems.append(f"images with a side below {SMALLEST_SIDE} pixels: {_some(places)}")


def _check_duplicates(report: DataReport, images: Sequence[LesionImage], scan: _Scan) -> None:
    groups: dict[str, list[LesionImage]] = defaultdict(list)
    for image, content in zip(images, scan.hashes, strict=True):
        if content:
            groups[content].append(image)
    within = []
    for group in (g for g in groups.values() if len(g) > 1):
        ids = [image.image_id for image in group]
        report.duplicates.append(ids)
        files = " = ".join(image.location for image in group)
        if len({image.label for image in group}) > 1:
            labels = ", ".join(sorted({image.label for image in group}))
            report.problems.append(f"identical files with different labels ({labels}): {files}")
        elif len({image.lesion_id for image in group}) > 1:
            report.problems.append(f"identical files in different lesions: {files}")
        else:
            within.append(" = ".join(ids))
    if within:
        report.notes.append(f"identical files within a lesion: {_some(within)}")


def _check_colours(report: DataReport, images: Sequence[LesionImage], scan: _Scan) -> None:
    """Robust z-scores: distance from the median in units of the scaled median deviation."""
    if len(scan.colours) < _FEWEST_FOR_COLOUR:
        return
    values = np.array(list(scan.colours.values()))
    distances = values - np.median(values, axis=0)
    spread = _MAD_TO_SD * np.median(np.abs(distances), axis=0)
    scores = np.abs(distances) / np.maximum(spread, _SMALLEST_SPREAD)
    positions = list(scan.colours)
    outliers = np.flatnonzero(scores.max(axis=1) > COLOUR_THRESHOLD)
    outliers = outliers[np.argsort(-scores[outliers].max(axis=1), kind="stable")]
    report.colour_outliers = [images[positions[i]].image_id for i in outliers]
    if len(outliers):
        places = [
            f"{images[positions[i]].location} ({_COLOURS[scores[i].argmax()]})" for i in outliers
        ]
        report.notes.append(f"images whose colours stand out: {_some(places)}")


def _some(items: Sequence[str]) -> str:
    """The first few of ``items`` and how many there are."""
    listed = ", ".join(items[:_LISTED])
    return listed if len(items) <= _LISTED else f"{listed} and {len(items) - _LISTED} more"


def _count(n: int, one: str, many: str | None = None) -> str:
    return f"{n} {one if n == 1 else many or one + 's'}"
