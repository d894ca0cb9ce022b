"""From encoded images to arrays of one size, cached by content."""

import hashlib
import io
import json
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from common.classes import ClassMap
from common.data.cases import Cases, LesionImage
from common.data.dicom import dicom_picture, is_dicom
from common.errors import DataUnreadable
from common.files import write_atomically

_FORMAT = 2
"""Counted up whenever the pixels that come out of this module change."""

MOST_PIXELS = 400_000_000
"""Larger pictures are refused: decoded they would take more than 1.2 GB of memory each."""

Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit warns from 89 million on; ours is above


class Cropping(Protocol):
    """A way to choose the part of a picture that is shown to the network."""

    @property
    def name(self) -> str:
        """Stable and unique; part of the cache key. Parameters or weights are named in it."""
        ...

    def pictures(self, images: Sequence[LesionImage]) -> Iterator[Image.Image]:
        """The chosen part of each image, in order, as RGB; it is then resized to a square."""
        ...


@dataclass(frozen=True)
class Crop:
    """A `Cropping` by a rule that looks at nothing but one picture.

    Parameters
    ----------
    name : str
    apply : callable
        From an RGB picture to an RGB picture.
    """

    name: str
    apply: Callable[[Image.Image], Image.Image]

    def pictures(self, images: Sequence[LesionImage]) -> Iterator[Image.Image]:
        """As `Cropping`; raises as `decode`."""
        return (self.apply(decode(image)) for image in images)


def _cut_centre_square(picture: Image.Image) -> Image.Image:
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))


def _keep_all(picture: Image.Image) -> Image.Image:
    return picture


centre_crop = Crop("centre-square", _cut_centre_square)
"""The largest centred square: dermatoscopic pictures are taken with the lesion in the middle."""

whole_frame = Crop("whole-frame", _keep_all)
"""The whole picture, squeezed to a square."""


def prepare_cases(
    images: Sequence[LesionImage],
    classes: ClassMap,
    *,
    size: int = 64,
    crop: Cropping = centre_crop,
    cache: Path | None = None,
) -> Cases:
    """Decode, crop and resize images to arrays.

    Parameters
    ----------
    images : sequence of LesionImage
    classes : ClassMap
        Its indices become the labels.
    size : int
        Side of the result in pixels.
    crop : Cropping
    cache : Path, optional
        Folder for prepared arrays, named by the content they were made from. A damaged file
        there is made anew. Nothing is stored without it, and nothing outside it.

    Returns
    -------
    Cases
        In the order of ``images``; ``images`` uint8, shape (n, size, size, 3).

    Raises
    ------
    DataUnreadable
        A file that cannot be decoded; the message names it.
    DataUnfit
        A DICOM file without a single photograph free of text; the message names it.
    UnknownLabel
        A label outside ``classes``.
    StorageFull
        ``cache`` cannot be written.
    """
    labels = np.array([classes.index(image.label) for image in images], np.int64)
    shape = (len(images), size, size, 3)
    file = None if cache is None else cache / f"{_key(images, labels, size, crop)}.npz"
    pixels = None if file is None else _load(file, shape)
    if pixels is None:
        pixels = np.empty(shape, np.uint8)
        for i, picture in enumerate(crop.pictures(images)):
            pixels[i] = np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC))
        if file is not None:
            buffer = io.BytesIO()
            np.savez(buffer, images=pixels)
            write_atomically(file, buffer.getvalue())
    ids, lesions = [i.image_id for i in images], [i.lesion_id for i in images]
    return Cases(pixels, labels, tuple(ids), tuple(lesions))


def decode(image: LesionImage, content: bytes | None = None) -> Image.Image:
    """Decode a JPEG, PNG or DICOM photograph to upright RGB (EXIF orientation applied).

    Parameters
    ----------
    image : LesionImage
    content : bytes, optional
        What ``image.read()`` returned, where the caller has it already.

    Raises
    ------
    DataUnreadable
        Not a complete JPEG, PNG or DICOM file, or one of more than `MOST_PIXELS`; the message
        names the file.
    DataUnfit
        A DICOM file that holds no photograph, or one with text burned into it.
    """
    encoded = image.read() if content is None else content
    if is_dicom(encoded):
        return dicom_picture(encoded, image.location, MOST_PIXELS)
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(io.BytesIO(encoded), formats=("JPEG", "PNG")) as picture,
        ):
            if picture.width * picture.height > MOST_PIXELS:
                raise ValueError(f"{picture.width} x {picture.height} pixels are too many")
            return _as_rgb(ImageOps.exif_transpose(picture))
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise DataUnreadable(
            f"{image.location} is not a readable JPEG, PNG or DICOM file ({_in_words(error)}); "
            "replace or remove it"
        ) from error


def _as_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16-bit grey, which Pillow would cut off at 255
        values = np.clip(np.asarray(picture, np.int64), 0, 65535)
        picture = Image.fromarray((values // 257).astype(np.uint8))
    elif picture.mode == "P":  # of a palette with transparency only RGBA keeps the colours
        picture = picture.convert("RGBA")
    return picture.convert("RGB")


def _in_words(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _key(
    images: Sequence[LesionImage], labels: NDArray[np.int64], size: int, crop: Cropping
) -> str:
    """SHA-256 over all that the arrays depend on."""
    digest = hashlib.sha256(json.dumps([_FORMAT, size, crop.name]).encode())
    for image, label in zip(images, labels, strict=True):
        content = hashlib.sha256(image.read()).hexdigest()
        entry = [content, int(label), image.image_id, image.lesion_id]
        digest.update(json.dumps(entry).encode())
    return digest.hexdigest()


def _load(file: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """Pixels from a cache file (zip's checksums are verified), None where absent or damaged."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            pixels: NDArray[np.uint8] = archive["images"]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return None
    return pixels if pixels.dtype == np.uint8 and pixels.shape == shape else None
