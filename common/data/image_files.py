"""Image files below a folder or in its zip archives: found, told apart, and read."""

import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath

from common.data.dicom import MAGIC_END, is_dicom
from common.errors import DataNotFound, DataUnreadable

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".dcm", ".dicom"}
OTHER_IMAGE_SUFFIXES = {
    ".avif", ".bmp", ".gif", ".heic", ".heif", ".jp2", ".raw", ".tif", ".tiff", ".webp",
}  # fmt: skip
"""Of images that are not read; a data check says that they are there."""

_SAME_FORMAT = {".jpeg": ".jpg", ".jpe": ".jpg", ".jfif": ".jpg", ".dicom": ".dcm"}
_DICOM_DIRECTORY = "dicomdir"
"""The table of contents of a DICOM medium: patients' names, no picture."""
_NOT_IMAGES_OF_CASES = ("segmentation", "mask")
# What systems, archives, network storage and spreadsheets leave beside images.
_HIDDEN_PREFIXES = (".", "~$")
_LEFT_BEHIND = {"__MACOSX", "@eaDir"}

Reader = Callable[[], bytes]


@dataclass(frozen=True)
class ImageFile:
    """One image file.

    Parameters
    ----------
    parts : tuple of str
        Its path below the data folder, in lower case.
    location : str
        ``folder/x.jpg`` or ``archive.zip:x.jpg``; equal for the same file only.
    read : callable
        Returns the encoded file's bytes; raises DataNotFound or DataUnreadable, can be pickled.
    """

    parts: tuple[str, ...]
    location: str
    read: Reader


@dataclass
class ImageIndex:
    """The image files of a data folder by their lower-case name without suffix."""

    folder: Path
    by_stem: dict[str, list[ImageFile]] = field(default_factory=dict)

    def find(self, path: str) -> ImageFile | None:
        """The file that a table names by path, by file name, or by name without suffix.

        A path leads to the file there, else to the one file whose own path ends with it. A name
        leads to the one file of this name, wherever it is. None where there is no such file, or
        several.
        """
        direct = self._at(path)
        if direct is not None:
            return direct
        wanted = tuple(p.lower() for p in PurePosixPath(path).parts if p != "/")
        if not wanted or path.startswith("/"):
            return None
        stem, suffix = _split(wanted[-1])
        found = [
            file
            for file in self.by_stem.get(stem, [])
            if file.parts[-len(wanted) : -1] == wanted[:-1]
            and suffix in ("", _split(file.parts[-1])[1])
        ]
        return found[0] if len(found) == 1 else None

    def _at(self, path: str) -> ImageFile | None:
        """The file at ``path``, from the folder or absolute."""
        file = Path(os.path.normpath(self.folder / path))
        # Unlike Path.is_file this is False, no exception, for what no file can be called.
        exists = os.path.isfile(file)  # noqa: PTH113
        return on_disk(file, self.folder) if exists and is_image(file) else None


def index_of(folder: Path, entries: Iterable[Path]) -> ImageIndex:
    """All image files in and below those of ``entries`` (of ``folder``) that may hold cases.

    Of files whose paths differ in case only there is the first: Kaggle's HAM10000 unpacks every
    image twice so.
    """
    index = ImageIndex(folder)
    known: set[tuple[str, ...]] = set()
    for entry in filter(holds_cases, entries):
        for file in image_files(entry) if entry.is_dir() else [entry]:
            if is_image(file):
                found = on_disk(file, folder)
                if found.parts in known:
                    continue
                known.add(found.parts)
                index.by_stem.setdefault(_split(found.parts[-1])[0], []).append(found)
    return index


def on_disk(file: Path, folder: Path) -> ImageFile:
    """A file in or below ``folder``, or anywhere else."""
    inside = file.is_relative_to(folder)
    relative = file.relative_to(folder if inside else "/")
    location = f"{folder.name}/{relative.as_posix()}" if inside else str(file)
    return ImageFile(
        tuple(part.lower() for part in relative.parts), location, partial(read_file, file)
    )


def in_archive(archive: Path) -> Iterator[tuple[str, ImageFile]]:
    """Image files of a zip archive, each with its lower-case name without suffix.

    Raises DataUnreadable for a broken archive.
    """
    for member in _open_archive(archive, os.getpid()).namelist():
        path = PurePosixPath(member)
        if path.suffix.lower() in IMAGE_SUFFIXES and not any(map(is_not_the_users, path.parts)):
            parts = tuple(part.lower() for part in path.parts)
            read = partial(_read_member, archive, member)
            yield _split(parts[-1])[0], ImageFile(parts, f"{archive.name}:{member}", read)


def holds_cases(entry: Path) -> bool:
    """Whether a folder, archive or file may hold case images, not HAM10000's lesion masks."""
    return not any(word in entry.name.lower() for word in _NOT_IMAGES_OF_CASES)


def is_not_the_users(name: str) -> bool:
    """Whether a file or folder of this name is hidden or left there by another program."""
    return name.startswith(_HIDDEN_PREFIXES) or name in _LEFT_BEHIND


def image_files(folder: Path) -> Iterator[Path]:
    """Files below ``folder`` that are images by `is_image`; as `files_below`."""
    return filter(is_image, files_below(folder))


def is_image(file: Path) -> bool:
    """Whether a file is named like a JPEG, PNG or DICOM file, or is DICOM without being so named.

    DICOM files often have no suffix, or are named by numbers with dots between them. One that
    cannot be opened counts: reading it says why.
    """
    suffix = file.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return True
    if (suffix and not suffix[1:].isdecimal()) or file.name.lower() == _DICOM_DIRECTORY:
        return False
    try:
        if not file.is_file():
            return False
        with file.open("rb") as stream:
            return is_dicom(stream.read(MAGIC_END))
    except (OSError, ValueError):
        return True


def files_below(folder: Path) -> Iterator[Path]:
    """Files in and below ``folder``, sorted within each folder, links followed.

    Hidden files and folders, and those that other programs leave behind, are left out. Raises
    DataUnreadable for a folder that cannot be listed: its images would be missed silently.
    """
    seen: set[str] = set()
    for root, folders, files in os.walk(folder, onerror=_cannot_list, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:  # a link back to where it came from
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_not_the_users(name))
        yield from (Path(root, name) for name in sorted(files) if not is_not_the_users(name))


def _cannot_list(error: OSError) -> None:
    raise DataUnreadable(
        f"cannot list {error.filename}: {os.strerror(error.errno or 0)}; correct its permissions"
    ) from error


def read_file(path: Path) -> bytes:
    """A file's bytes; raises DataNotFound or DataUnreadable."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataNotFound(f"no image {path}; add it or remove what names it") from None
    except (OSError, ValueError) as error:
        why = os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)
        raise DataUnreadable(f"cannot read {path}: {why}; correct or remove it") from error


@lru_cache(maxsize=16)
def _open_archive(path: Path, process: int) -> zipfile.ZipFile:
    """Open a zip archive once per process: a forked child must not share its file offset."""
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError:
        raise DataNotFound(f"{path} is no longer there; put it back") from None
    except _BROKEN_ARCHIVE as error:
        raise DataUnreadable(f"cannot open {path}: {error}; copy or download it again") from error


def _read_member(archive: Path, member: str) -> bytes:
    try:
        return _open_archive(archive, os.getpid()).read(member)
    except _BROKEN_ARCHIVE as error:
        raise DataUnreadable(
            f"cannot read {member} in {archive}: {error}; copy or download the archive again"
        ) from error


# zipfile raises NotImplementedError for a version or method that a damaged byte asks for.
_BROKEN_ARCHIVE = (
    OSError,
    RuntimeError,
    NotImplementedError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def _split(name: str) -> tuple[str, str]:
    """A lower-case file name as its stem and its format's suffix, empty where it has none."""
    path = PurePosixPath(name)
    if path.suffix not in IMAGE_SUFFIXES:
        return name, ""
    return path.stem, _SAME_FORMAT.get(path.suffix, path.suffix)
