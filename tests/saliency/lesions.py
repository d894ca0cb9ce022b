"""Pictures of dark blots on skin, away from the centre, with masks."""

import io
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from common.data.cases import LesionImage

_PLACES = ((60, 50), (140, 60), (60, 100), (120, 90), (90, 60), (140, 100))


def lesion(index: int) -> tuple[int, int, int]:
    """Centre and radius, in pixels of a 200 x 150 frame."""
    x, y = _PLACES[index % len(_PLACES)]
    return x, y, 18 + 4 * (index % 3)


def picture(index: int) -> Image.Image:
    """The whole frame."""
    rng = np.random.default_rng(index)
    skin = np.clip(rng.normal((214, 160, 140), 6, (150, 200, 3)), 0, 255)
    frame = Image.fromarray(skin.astype(np.uint8))
    ImageDraw.Draw(frame).ellipse(_box(index), fill=(90, 50, 40))
    return frame


def lesion_images(n: int) -> list[LesionImage]:
    """Labelled images of two classes and two sources."""
    return [
        LesionImage(
            image_id=f"blot_{i}",
            lesion_id=f"L{i}",
            label=("nv", "mel")[i % 2],
            source=("a", "b")[i // 2 % 2],
            location=f"blot_{i}.png",
            read=partial(_png, picture(i)),
        )
        for i in range(n)
    ]


def write_masks(images: list[LesionImage], folder: Path, zipped: bool) -> None:
    """The masks, as HAM10000 has them or in a folder."""
    for image in images:
        index = int(image.image_id.split("_")[1])
        mask = Image.new("L", (200, 150))
        ImageDraw.Draw(mask).ellipse(_box(index), fill=255)
        name = f"{image.image_id}_segmentation.png"
        if zipped:
            with zipfile.ZipFile(folder / "HAM10000_segmentations_lesion.zip", "a") as archive:
                archive.writestr(name, _png(mask))
        else:
            (folder / "masks").mkdir(exist_ok=True)
            (folder / "masks" / name).write_bytes(_png(mask))


def _box(index: int) -> tuple[int, int, int, int]:
    x, y, radius = lesion(index)
    return x - radius, y - radius, x + radius, y + radius


def _png(frame: Image.Image) -> bytes:
    stream = io.BytesIO()
    frame.save(stream, "PNG")
    return stream.getvalue()
