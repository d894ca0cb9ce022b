"""Which brightness or colour each value of a DICOM picture is shown with."""

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from common.data.dicom_header import Layout
from common.errors import DataUnreadable

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_CHANNELS = ("Red", "Green", "Blue")

_WINDOW_TAGS = ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "VOILUTFunction")

LEVEL_TAGS = (
    *_WINDOW_TAGS,
    "ModalityLUTSequence",
    "VOILUTSequence",
    *(f"{c}PaletteColorLookupTable{part}" for c in _CHANNELS for part in ("Descriptor", "Data")),
)
"""The attributes that `shown_levels` looks at beside those of the layout."""


def shown_levels(header: "Dataset", layout: Layout) -> NDArray[np.uint8]:
    """What is shown for each value that a pixel can have, from the lowest value up.

    Grey values are rescaled and windowed where the file says so, else their whole range is
    shown: the brightness of a picture must not depend on what is in it.

    Parameters
    ----------
    header : Dataset
        With `HEADER_TAGS` and `LEVEL_TAGS`, as far as the file has them.

    Returns
    -------
    uint8 array, shape (2 ** layout.stored,), or with 3 columns for a palette

    Raises
    ------
    DataUnreadable
        Lookup tables other than a plain palette.
    """
    n = 1 << layout.stored
    lowest = -(n >> 1) if layout.signed else 0
    if layout.colours == "PALETTE COLOR":
        values = np.arange(n) + lowest
        return np.stack([_palette(header, c, values, layout) for c in _CHANNELS], axis=1)
    ramp: NDArray[np.uint8] = (np.arange(n) * 255 // (n - 1)).astype(np.uint8)  # as 16-bit PNGs
    if layout.samples == 3:
        return ramp
    if header.get("ModalityLUTSequence") or header.get("VOILUTSequence"):
        raise DataUnreadable(
            f"{layout.location} has a lookup table for its grey values, which is not read; export "
            "it with a window or as 8-bit grey"
        )
    levels = _windowed(header, ramp, lowest)
    return np.invert(levels) if layout.colours == "MONOCHROME1" else levels


def _windowed(header: "Dataset", ramp: NDArray[np.uint8], lowest: int) -> NDArray[np.uint8]:
    from pydicom.pixels.processing import apply_rescale, apply_windowing

    for keyword in _WINDOW_TAGS:
        if keyword in header and header[keyword].is_empty:
            del header[keyword]
    values = apply_rescale(np.arange(len(ramp), dtype=np.float64) + lowest, header)
    first, last = float(values[0]), float(values[-1])
    if "WindowCenter" not in header or "WindowWidth" not in header:
        return ramp if first < last else ramp[::-1]
    shares = (apply_windowing(values, header) - first) / (last - first)
    if not np.isfinite(shares).all():
        raise ValueError("a rescale slope or a window that is no number")
    levels: NDArray[np.uint8] = np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8)
    return levels


def _palette(
    header: "Dataset", channel: str, values: NDArray[Any], layout: Layout
) -> NDArray[np.uint8]:
    """One channel of a plain palette; values beyond its ends get the colour of the end."""
    from pydicom.tag import Tag

    descriptor, data = (
        header.get_item(Tag(f"{channel}PaletteColorLookupTable{part}"))
        for part in ("Descriptor", "Data")
    )
    if descriptor is None or data is None:
        raise DataUnreadable(
            f"{layout.location} has no plain palette (perhaps a segmented one); export it as RGB"
        )
    order = "<" if header.original_encoding[1] else ">"
    # Read here, as pydicom's apply_color_lut wraps indices above 255 of 8-bit palettes.
    entries, first, bits = struct.unpack(
        f"{order}H{'h' if layout.signed else 'H'}H", bytes(descriptor.value)
    )
    entries = entries or 1 << 16
    wide = len(data.value) >= 2 * entries
    table = np.frombuffer(data.value, f"{order}u2" if wide else "u1", count=entries)
    found = table[np.clip(values - first, 0, entries - 1)]
    channel_levels: NDArray[np.uint8] = (found >> 8 if wide and bits == 16 else found).astype(
        np.uint8
    )
    return channel_levels
