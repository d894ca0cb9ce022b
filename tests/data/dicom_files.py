"""DICOM files for tests: made with pydicom, full of values that must not come out again."""

import io
import logging
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import config
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    UID,
    DermoscopicPhotographyImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

NAME, NUMBER, UID_ROOT = "Qmarker^Zoe", "Qmarker4711", "1.2.826.0.1.987654321"
MARKERS = ("Qmarker", "QMARKER", "19570314", "987654321")
"""No text that leaves the reader may hold one of these."""


def picture(height: int = 48, width: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    """A smooth picture in colour, shape (height, width, 3)."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


def dicom(
    pixels: NDArray[Any] | bytes,
    syntax: str = ExplicitVRLittleEndian,
    *,
    without: tuple[str, ...] = (),
    **attributes: Any,
) -> bytes:
    """A DICOM file with these pixels; attributes go by pydicom's keywords.

    An array of shape (rows, columns) is taken for grey, with a third axis for RGB; bytes are
    already in the transfer syntax, and then the layout is that of `picture`.
    """
    array = pixels if isinstance(pixels, np.ndarray) else picture()
    data = Dataset()
    data.SOPClassUID = DermoscopicPhotographyImageStorage
    data.SOPInstanceUID = f"{UID_ROOT}.1"
    data.StudyInstanceUID = f"{UID_ROOT}.2"
    data.PatientName = NAME
    data.PatientID = data.AccessionNumber = data.InstitutionName = NUMBER
    data.PatientBirthDate = data.StudyDate = "19570314"
    data.ImageComments = f"{NAME} 19570314"
    icon = Dataset()
    icon.ImageComments = NAME
    data.IconImageSequence = [icon]
    data.add_new(0x00091001, "LO", NUMBER)
    data.Rows, data.Columns = array.shape[:2]
    colour = array.ndim == 3
    data.SamplesPerPixel = 3 if colour else 1
    data.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        data.PlanarConfiguration = 0
    bits = array.dtype.itemsize * 8
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
    data.PixelRepresentation = int(array.dtype.kind == "i")
    uid = UID(syntax)
    if isinstance(pixels, bytes):
        content = pixels
    else:
        ordered = array if uid.is_little_endian else array.astype(array.dtype.newbyteorder(">"))
        content = ordered.tobytes() + b"\0" * (ordered.nbytes % 2)
    known = uid.is_transfer_syntax and not uid.is_private
    stream = io.BytesIO()
    with _silent():
        for keyword, value in attributes.items():
            setattr(data, keyword, value)
        for keyword in without:
            delattr(data, keyword)
        data.add_new(0x7FE00010, "OW" if bits > 8 else "OB", content)
        data["PixelData"].is_undefined_length = known and uid.is_encapsulated
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = uid if known else UID(ExplicitVRLittleEndian)
        data.file_meta.MediaStorageSOPInstanceUID = f"{UID_ROOT}.1"
        data.file_meta.SourceApplicationEntityTitle = NUMBER
        data.preamble = b"\0" * 128
        dcmwrite(stream, data, enforce_file_format=False)
    written = stream.getvalue()
    return written if known else with_transfer_syntax(written, syntax)


@contextmanager
def _silent() -> Iterator[None]:
    """Whatever is written here is meant so."""
    log = logging.getLogger("pydicom")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    with warnings.catch_warnings(action="ignore"), config.disable_value_validation():
        yield
    log.setLevel(level)


def with_transfer_syntax(content: bytes, syntax: str) -> bytes:
    """A file that says to be in another transfer syntax than it is written in."""
    at = content.index(b"\2\0\x10\0UI") + 8
    old = struct.unpack_from("<H", content, at - 2)[0]
    new = syntax.encode() + b"\0" * (len(syntax) % 2)
    return content[: at - 2] + struct.pack("<H", len(new)) + new + content[at + old :]


def as_file(array: NDArray[np.uint8], kind: str, **settings: Any) -> bytes:
    """A picture as Pillow writes it."""
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind, **settings)
    return stream.getvalue()


def jpeg_dicom(frame: bytes, **attributes: Any) -> bytes:
    """A DICOM file around a JPEG."""
    settings = {"PhotometricInterpretation": "YBR_FULL_422", **attributes}
    return dicom(encapsulate([frame]), JPEGBaseline8Bit, **settings)


def jpeg_2000_dicom(array: NDArray[Any], **attributes: Any) -> bytes:
    """A DICOM file around a lossless JPEG 2000 of the array."""
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "JPEG2000", irreversible=False, no_jp2=True)
    like = {"Rows": array.shape[0], "Columns": array.shape[1]}
    return dicom(encapsulate([stream.getvalue()]), JPEG2000Lossless, **{**like, **attributes})


def rle_dicom(array: NDArray[Any]) -> bytes:
    """A DICOM file in RLE, grey or RGB."""
    with _silent():
        plain = Dataset()
        plain.Rows, plain.Columns = array.shape[:2]
        colour = array.ndim == 3
        plain.SamplesPerPixel = 3 if colour else 1
        plain.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
        bits = array.dtype.itemsize * 8
        plain.BitsAllocated, plain.BitsStored, plain.HighBit = bits, bits, bits - 1
        plain.PixelRepresentation = 0
        if colour:
            plain.PlanarConfiguration = 0
        plain.file_meta = FileMetaDataset()
        plain.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        plain.compress(RLELossless, array, generate_instance_uid=False)
    layout = {k: plain[k].value for k in ("Rows", "Columns", "SamplesPerPixel")}
    layout |= {k: plain[k].value for k in ("BitsAllocated", "BitsStored", "HighBit")}
    layout["PhotometricInterpretation"] = plain.PhotometricInterpretation
    return dicom(plain.PixelData, RLELossless, **layout)


def without_jfif(jpeg: bytes) -> bytes:
    """A JPEG of Pillow's without its JFIF marker."""
    assert jpeg[2:4] == b"\xff\xe0"
    return jpeg[:2] + jpeg[4 + struct.unpack(">H", jpeg[4:6])[0] :]


def with_adobe(jpeg: bytes, transform: int) -> bytes:
    """A JPEG with Adobe's marker in place of JFIF's, which says how the colours are stored."""
    marker = b"\xff\xee" + struct.pack(">H", 14) + b"Adobe"
    marker += struct.pack(">HHHB", 100, 0, 0, transform)
    return jpeg[:2] + marker + without_jfif(jpeg)[2:]


def with_component_names(jpeg: bytes, names: bytes) -> bytes:
    """A JPEG whose three components are called differently."""
    changed = bytearray(jpeg)
    frame, scan = changed.index(b"\xff\xc0"), changed.index(b"\xff\xda")
    for i, name in enumerate(names):
        changed[frame + 10 + 3 * i] = changed[scan + 5 + 2 * i] = name
    return bytes(changed)
