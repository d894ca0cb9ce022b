"""Photographs out of DICOM files: the pixels, and nothing else that such a file says."""

import io
import logging
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.data.dicom_header import (
    DEFLATED,
    HEADER_TAGS,
    JPEG,
    JPEG_2000,
    NATIVE,
    Layout,
    layout_of,
    refuse_transfer_syntax,
    refuse_unfit,
)
from common.data.dicom_levels import LEVEL_TAGS, shown_levels
from common.errors import DataError, DataUnreadable

if TYPE_CHECKING:  # it takes half a second, for files that few folders have
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

MAGIC_END = 132
"""How many bytes of a file `is_dicom` needs."""

_FIRST_PIXEL_TAG, _PIXEL_DATA = 0x7FE00008, 0x7FE00010
_UNDEFINED_LENGTH = 0xFFFFFFFF
_LONGEST_HEADER = 1 << 24
"""Bytes inflated before it is known how large the picture is."""
_ELEMENT_START = 12
"""The longest start of an element, before its value."""

_one_at_a_time = threading.Lock()
# Beside the filter within `_silence`, which another thread's may undo.
warnings.filterwarnings("ignore", module=r"pydicom\.")


def is_dicom(content: bytes) -> bool:
    """Whether a file is DICOM, by its first `MAGIC_END` bytes."""
    return content[128:MAGIC_END] == b"DICM"


def dicom_picture(content: bytes, location: str, most_pixels: int) -> Image.Image:
    """Decode the photograph of a DICOM file to RGB.

    Only attributes that describe the pixels are looked at, and what the file says is in no
    exception, warning or log line.

    Parameters
    ----------
    content : bytes
        The whole file.
    location : str
        What messages call the file.
    most_pixels : int
        Larger pictures are refused before they are decoded.

    Raises
    ------
    DataUnfit
        Not one photograph, or one with text burned into it.
    DataUnreadable
        Damaged, too large, or in a form that cannot be decoded here.
    """
    with _silence():
        try:
            return _picture(content, location, most_pixels)
        except (DataError, MemoryError):
            raise
        except Exception:
            # pydicom promises no set of exceptions for damaged files, and their texts quote
            # values: nothing of this one goes on, not even as the context of the next.
            pass
    raise DataUnreadable(
        f"{location} is not a readable DICOM file (damaged or incomplete); export it again or "
        "remove it"
    )


@contextmanager
def _silence() -> Iterator[None]:
    """Let nothing out that pydicom and Pillow say about a file: they quote its values."""
    from pydicom.config import disable_value_validation

    loggers = [logging.getLogger(name) for name in ("pydicom", "PIL")]
    with (
        _one_at_a_time,  # filters, levels and pydicom's settings are the whole process's
        warnings.catch_warnings(action="ignore"),
        disable_value_validation(),
    ):
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _picture(content: bytes, location: str, most_pixels: int) -> Image.Image:
    file = io.BytesIO(content)
    file.seek(MAGIC_END)
    syntax = _transfer_syntax(file, location)
    body = memoryview(content)[file.tell() :]
    stream = _data_set(body, syntax, _LONGEST_HEADER)
    header = _read(stream, syntax, (*HEADER_TAGS, *LEVEL_TAGS), _FIRST_PIXEL_TAG)
    refuse_unfit(header, location)
    layout = layout_of(header, syntax, location, most_pixels)
    start = stream.tell()
    if syntax == DEFLATED:
        stream = _data_set(body, syntax, start + _ELEMENT_START + layout.native_length + 1)
        stream.seek(start)
    element = _read(stream, syntax, ("PixelData",), _PIXEL_DATA + 1).get_item(_PIXEL_DATA)
    if element is None or not isinstance(element.value, bytes):
        raise DataUnreadable(f"{location} holds no complete picture; export it again or remove it")
    compressed = getattr(element, "length", None) == _UNDEFINED_LENGTH
    if compressed == (syntax in NATIVE):
        raise ValueError("the pixels are not in the file's transfer syntax")
    if syntax == JPEG:
        return Image.fromarray(_as_rgb(_of_jpeg(element.value, layout), layout, header))
    array, colours = _decoded(element.value, str(element.VR), syntax, layout)
    if colours.startswith("YBR"):
        picture = Image.frombytes("YCbCr", (layout.columns, layout.rows), array.tobytes())
        return picture.convert("RGB")
    return Image.fromarray(_as_rgb(array, layout, header))


def _transfer_syntax(file: BinaryIO, location: str) -> "UID":
    """The transfer syntax by the file's meta information, at whose end ``file`` then is."""
    from pydicom.filereader import read_dataset
    from pydicom.tag import Tag
    from pydicom.uid import UID

    meta = read_dataset(
        file,
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=lambda tag, *_: tag >> 16 != 2,
        specific_tags=[Tag("TransferSyntaxUID")],
    )
    syntax = UID(str(meta["TransferSyntaxUID"].value))
    refuse_transfer_syntax(syntax, location)
    return syntax


def _data_set(body: memoryview, syntax: str, most: int) -> io.BytesIO:
    """What follows the meta information; inflated no further than ``most`` bytes."""
    if syntax != DEFLATED:
        return io.BytesIO(body)
    return io.BytesIO(zlib.decompressobj(-zlib.MAX_WBITS).decompress(body, most))


def _read(stream: BinaryIO, syntax: "UID", keywords: tuple[str, ...], end: int) -> "Dataset":
    """The elements of these keywords before the tag ``end``; others are skipped."""
    from pydicom.filereader import read_dataset
    from pydicom.tag import Tag

    return read_dataset(
        stream,
        syntax.is_implicit_VR,
        syntax.is_little_endian,
        stop_when=lambda tag, *_: tag >= end,
        specific_tags=[Tag(keyword) for keyword in keywords],
    )


def _decoded(pixels: bytes, vr: str, syntax: "UID", layout: Layout) -> tuple[NDArray[Any], str]:
    """Values of shape (rows, columns) or (rows, columns, 3), and what their colours now are."""
    from pydicom.encaps import get_frame
    from pydicom.pixels.decoders.base import get_decoder

    length = layout.native_length
    if syntax in NATIVE and len(pixels) not in (length, length + length % 2):
        raise ValueError("the pixels are cut short, or of another size than the header says")
    if syntax in JPEG_2000:  # what is inside may be larger than the header says
        frame = get_frame(pixels, 0, number_of_frames=1)
        with Image.open(io.BytesIO(frame), formats=("JPEG2000",)) as picture:
            _require_size(picture, layout)
    options: dict[str, Any] = {
        "rows": layout.rows,
        "columns": layout.columns,
        "number_of_frames": 1,
        "samples_per_pixel": layout.samples,
        "photometric_interpretation": layout.colours,
        "planar_configuration": layout.planar,
        "bits_allocated": layout.allocated,
        "bits_stored": layout.stored,
        "pixel_representation": int(layout.signed),
        "pixel_keyword": "PixelData",
        "pixel_vr": vr,
    }
    array, facts = get_decoder(syntax).as_array(pixels, index=0, raw=True, **options)
    return array, str(facts["photometric_interpretation"])


def _of_jpeg(pixels: bytes, layout: Layout) -> NDArray[Any]:
    """Grey or RGB as libjpeg reads any JPEG; pydicom converts those with Adobe's mark twice."""
    from pydicom.encaps import get_frame

    frame = get_frame(pixels, 0, number_of_frames=1)
    with Image.open(io.BytesIO(frame), formats=("JPEG",)) as picture:
        _require_size(picture, layout)
        names = bytes(component[0] for component in getattr(picture, "layer", []))
        marked = bool({"jfif", "adobe"} & picture.info.keys()) or names == b"RGB"
        if layout.colours == "RGB" and not marked:  # libjpeg would take it for YCbCr
            picture.draft("YCbCr", picture.size)
        array: NDArray[Any] = np.asarray(picture)
    if array.shape[2:] != ((3,) if layout.samples == 3 else ()):
        raise ValueError("the JPEG has other channels than the header says")
    return array


def _require_size(picture: Image.Image, layout: Layout) -> None:
    if picture.size != (layout.columns, layout.rows):
        raise ValueError("the compressed picture is of another size than the header says")


def _as_rgb(array: NDArray[Any], layout: Layout, header: "Dataset") -> NDArray[np.uint8]:
    """Values as they are shown, uint8, shape (rows, columns, 3)."""
    if layout.samples == 3 and layout.stored == 8 == layout.allocated:
        return array
    levels = shown_levels(header, layout)
    lowest = -(1 << (layout.stored - 1)) if layout.signed else 0
    shown = np.empty((layout.rows, layout.columns, 3), np.uint8)
    for row in range(0, layout.rows, 256):  # an index takes eight times the memory of a byte
        block = levels[array[row : row + 256].astype(np.intp) - lowest]
        shown[row : row + 256] = block if block.ndim == 3 else block[..., None]
    return shown
