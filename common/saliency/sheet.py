"""A contact sheet: whole frames with the crops drawn in, and what the network gets to see of each.

One HTML file that needs nothing else. It shows patients' images, so it is readable by its owner
only and belongs where the images are.
"""

import base64
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from PIL import Image

from common.data.cases import LesionImage
from common.data.preparation import decode
from common.files import write_atomically
from common.saliency.boxes import Box
from common.saliency.quality import LESION, overlap

COLOURS = {
    "whole": "",
    "centre": "#1f6feb",
    "saliency": "#d1242f",
    "grad-cam": "#bf8700",
    "mask": "#1a7f37",
    LESION: "#000",
}
"""Of each crop's outline; the whole frame has none, the lesion's own box is dashed."""

_FRAME_WIDTH = 240
_READABLE_BY_OWNER = 0o600

_STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 24px; color: #1f2328; background: #fff; }
h1 { font-size: 20px; margin: 0 0 4px; } h2 { font-size: 16px; margin: 24px 0 8px; }
.cases { display: flex; flex-wrap: wrap; gap: 16px; }
figure { margin: 0; width: 512px; display: grid; grid-template-columns: 240px 1fr; gap: 8px; }
figcaption { grid-column: 1 / 3; font-size: 12px; color: #59636e; overflow-wrap: anywhere; }
.parts { display: grid; grid-template-columns: 1fr 1fr 1fr; gap: 4px 8px; align-content: start; }
.parts div { font-size: 11px; } .parts img { display: block; width: 80px; height: 80px;
image-rendering: pixelated; box-sizing: border-box; border: 3px solid #d0d7de; }
.key { display: inline-block; width: 14px; height: 10px; margin: 0 4px 0 12px; border: 2px solid; }
"""


_NOTE = "Beside a crop's name: intersection over union of its box and the lesion's."


@dataclass(frozen=True)
class SheetCase:
    """An image of the sheet and where each crop cuts it, by the crop's name."""

    image: LesionImage
    boxes: Mapping[str, Box]


def sample_for_sheet(images: Sequence[LesionImage], each: int) -> list[LesionImage]:
    """The same few images of every class and source, evenly spaced among them by id."""
    groups: dict[tuple[str, str], list[LesionImage]] = defaultdict(list)
    for image in images:
        groups[image.label, image.source].append(image)
    chosen = []
    for key in sorted(groups):
        members = sorted(groups[key], key=lambda image: image.image_id)
        count = min(each, len(members))
        chosen += [members[(2 * i + 1) * len(members) // (2 * count)] for i in range(count)]
    return chosen


def write_sheet(cases: Sequence[SheetCase], path: Path, title: str, size: int = 64) -> None:
    """Write the sheet of some cases, grouped by class; raises StorageFull."""
    groups: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        groups[case.image.label].append(_figure(case, size))
    body = "".join(
        f"<h2>{escape(name)}</h2><div class=cases>{''.join(figures)}</div>"
        for name, figures in groups.items()
    )
    shown = [name for name in COLOURS if any(name in case.boxes for case in cases)]
    page = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title>"
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1><p>{_key(shown)}</p><p>{_NOTE}</p>{body}</html>\n"
    )
    write_atomically(path, page.encode(), _READABLE_BY_OWNER)


def _key(names: Sequence[str]) -> str:
    entries = []
    for name in names:
        if colour := COLOURS[name]:
            dashed = "; border-style: dashed" if name == LESION else ""
            what = "smallest box of the lesion's mask" if name == LESION else name
            entries.append(
                f'<span class=key style="border-color: {colour}{dashed}"></span>{escape(what)}'
            )
    return "".join(entries)


def _figure(case: SheetCase, size: int) -> str:
    picture = decode(case.image)
    lesion = case.boxes.get(LESION)
    parts = []
    for name, box in case.boxes.items():
        if name == LESION:
            continue
        cut = picture.crop(box).resize((size, size), Image.Resampling.BICUBIC)
        colour = COLOURS[name] or "#d0d7de"
        note = f"{name} {overlap(box, lesion):.2f}" if lesion else name
        parts.append(
            f'<div><img alt="" style="border-color: {colour}" src="{_as_url(cut, "PNG")}">'
            f"{escape(note)}</div>"
        )
    caption = " ".join(filter(None, (case.image.image_id, case.image.source)))
    return (
        f"<figure>{_frame(picture, case.boxes)}<div class=parts>{''.join(parts)}</div>"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _frame(picture: Image.Image, boxes: Mapping[str, Box]) -> str:
    """The whole frame with the boxes over it."""
    scale = _FRAME_WIDTH / picture.width
    height = round(picture.height * scale)
    small = picture.resize((_FRAME_WIDTH, height), Image.Resampling.BICUBIC)
    outlines = []
    for name, box in boxes.items():
        if colour := COLOURS[name]:
            dashes = ' stroke-dasharray="4 3"' if name == LESION else ""
            left, top = box.left * scale, box.top * scale
            width, tall = (box.right - box.left) * scale, (box.bottom - box.top) * scale
            outlines.append(
                f'<rect x="{left + 1:.1f}" y="{top + 1:.1f}" width="{width - 2:.1f}" '
                f'height="{tall - 2:.1f}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>'
            )
    return (
        f'<svg width="{_FRAME_WIDTH}" height="{height}"><image width="{_FRAME_WIDTH}" '
        f'height="{height}" href="{_as_url(small, "JPEG")}"/>{"".join(outlines)}</svg>'
    )


def _as_url(picture: Image.Image, kind: str) -> str:
    stream = io.BytesIO()
    picture.save(stream, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"
