"""What a DICOM file says about its picture, and whether that is a photograph that can be read."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.errors import DataUnfit, DataUnreadable

if TYPE_CHECKING:  # it takes half a second, for files that few folders have
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

DEFLATED = "1.2.840.10008.1.2.1.99"
NATIVE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", DEFLATED}
JPEG = "1.2.840.10008.1.2.4.50"
JPEG_2000 = {"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"}
RLE = "1.2.840.10008.1.2.5"

_CONVERTERS = {
    "1.2.840.10008.1.2.4.51": "dcmdjpeg",
    "1.2.840.10008.1.2.4.57": "dcmdjpeg",
    "1.2.840.10008.1.2.4.70": "dcmdjpeg",
    "1.2.840.10008.1.2.4.80": "dcmdjpls",
    "1.2.840.10008.1.2.4.81": "dcmdjpls",
}
"""DCMTK's programs for transfer syntaxes that Pillow cannot decode."""

_PHOTOGRAPHS = {
    "1.2.840.10008.5.1.4.1.1.77.1.4",  # VL Photographic Image Storage
    "1.2.840.10008.5.1.4.1.1.77.1.7",  # Dermoscopic Photography Image Storage
}
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_COLOURS_BY_SAMPLES = {
    1: {"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"},
    3: {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT"},
}
_OTHER_COLOURS = {"YBR_PARTIAL_420", "YBR_PARTIAL_422", "HSV", "ARGB", "CMYK", "XYB"}

HEADER_TAGS = (
    "SOPClassUID",
    "BurnedInAnnotation",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)
"""The attributes that this module looks at; none of them names anybody."""


@dataclass(frozen=True)
class Layout:
    """How the pixels of a file are laid down.

    Parameters
    ----------
    rows, columns : int
    samples : int
        Values of a pixel, 1 or 3.
    colours : str
        Photometric interpretation.
    planar : int
        1 where the channels stand one after the other.
    allocated, stored : int
        Bits of a value in the file (8 or 16), and how many of them, the lowest, count.
    signed : bool
    location : str
        What messages call the file.
    """

    rows: int
    columns: int
    samples: int
    colours: str
    planar: int
    allocated: int
    stored: int
    signed: bool
    location: str

    @property
    def native_length(self) -> int:
        """Bytes of the picture where it is not compressed."""
        halved = self.colours == "YBR_FULL_422"  # two pixels share their two colour differences
        values = self.rows * self.columns * (2 if halved else self.samples)
        return values * self.allocated // 8


def refuse_transfer_syntax(syntax: "UID", location: str) -> None:
    """Raise DataUnreadable for a transfer syntax that cannot be decoded here."""
    if syntax in {*NATIVE, *JPEG_2000, JPEG, RLE}:
        return
    converter = _CONVERTERS.get(syntax)
    how = f"convert it with {converter} (DCMTK)" if converter else "export it uncompressed"
    raise DataUnreadable(
        f"{location} has the transfer syntax {_name_of(syntax)}, which cannot be decoded here; "
        f"{how}"
    )


def refuse_unfit(header: "Dataset", location: str) -> None:
    """Raise DataUnfit for what is no photograph, or has text burned into it."""
    from pydicom.uid import UID

    kind, burned_in = UID(str(header["SOPClassUID"].value)), _text(header, "BurnedInAnnotation")
    if kind not in {*_PHOTOGRAPHS, _SECONDARY_CAPTURE}:
        raise DataUnfit(
            f"{location} is of the kind {_name_of(kind)}; of DICOM, photographs are read (VL "
            "Photographic, Dermoscopic Photography, Secondary Capture): remove it"
        )
    if burned_in == "YES":
        raise DataUnfit(
            f"{location} says that text is burned into the picture, which may name the patient; "
            "export the photograph without it, or cover the text and set Burned In Annotation "
            "(0028,0301) to NO"
        )
    if kind == _SECONDARY_CAPTURE and burned_in != "NO":
        raise DataUnfit(
            f"{location} is a Secondary Capture, which may be a screenshot or a scanned letter; "
            "if it is a photograph without text, set Burned In Annotation (0028,0301) to NO"
        )


def layout_of(header: "Dataset", syntax: str, location: str, most_pixels: int) -> Layout:
    """How the pixels are laid down, from `HEADER_TAGS`.

    Raises DataUnreadable for what cannot be shown or is larger than ``most_pixels`` over all
    frames, DataUnfit for several frames.
    """
    layout = Layout(
        rows=_number(header, "Rows"),
        columns=_number(header, "Columns"),
        samples=_number(header, "SamplesPerPixel"),
        colours=_text(header, "PhotometricInterpretation"),
        planar=_number(header, "PlanarConfiguration", 0),
        allocated=_number(header, "BitsAllocated"),
        stored=_number(header, "BitsStored"),
        signed=bool(_number(header, "PixelRepresentation")),
        location=location,
    )
    frames = _number(header, "NumberOfFrames", 1)
    if layout.rows * layout.columns * frames > most_pixels:
        raise DataUnreadable(
            f"{location} has more than {most_pixels} pixels over all its frames; scale it down"
        )
    if frames != 1:
        raise DataUnfit(f"{location} holds several frames; export each as a file of its own")
    if layout.colours not in _COLOURS_BY_SAMPLES.get(layout.samples, set()):
        name = layout.colours if layout.colours in _OTHER_COLOURS else "(unknown)"
        raise DataUnreadable(
            f"{location} has the photometric interpretation {name}, which cannot be shown here; "
            "export it as RGB"
        )
    _refuse_bits(layout, _number(header, "HighBit", layout.stored - 1), syntax)
    return layout


def _refuse_bits(layout: Layout, high_bit: int, syntax: str) -> None:
    """Raise DataUnreadable for depths that cannot be shown."""
    fit = 1 <= layout.stored <= layout.allocated and high_bit == layout.stored - 1
    if not fit or layout.allocated not in (8, 16):
        raise DataUnreadable(
            f"{layout.location} has another depth than 8 or 16 bits; export it with 8 bits"
        )
    only_8 = syntax == JPEG or syntax in JPEG_2000 or "YBR" in layout.colours
    if layout.samples == 3 and (layout.signed or (only_8 and layout.allocated != 8)):
        raise DataUnreadable(
            f"{layout.location} has colours of a depth that cannot be shown here; export it with "
            "8 bits"
        )


def _name_of(uid: "UID") -> str:
    """A UID's name in the standard; any other may identify somebody."""
    return uid.name if uid.name != uid else "(unknown)"


def _number(header: "Dataset", keyword: str, default: int | None = None) -> int:
    value = header.get(keyword)
    return default if value in (None, "") and default is not None else int(value)


def _text(header: "Dataset", keyword: str) -> str:
    return str(header.get(keyword, "")).strip(" \0").upper()
