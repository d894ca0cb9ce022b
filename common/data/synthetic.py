"""A made-up data set of dermoscopy-like lesions, for the demo and for tests.

Seven classes differ in shape, colour and texture as their dermoscopic descriptions do (Kittler
et al. 2016, doi:10.1016/j.jaad.2015.12.038) but overlap: each feature has its own strength in
each lesion and may be missing. Nothing learned from it says anything about real lesions.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from common.classes import HAM10000_CLASSES, ClassMap
from common.data.cases import LesionImage
from common.data.drawing import Features, Look, Style, draw_view
from common.errors import SettingsError
from common.files import write_atomically

_STYLES = {
    "studio": Style(cast=(1.0, 1.0, 1.0)),
    "handheld": Style(cast=(1.06, 0.97, 0.88), lighting=0.2, blur=0.9, hairs=0.5),
    "polarized": Style(cast=(0.94, 0.92, 1.08), contrast=1.2, vignette=0.95, hairs=0.25),
    "archive": Style(cast=(1.02, 0.98, 0.80), contrast=0.8, blur=0.5, grain=0.03, ruler=0.6),
}
STYLES = tuple(_STYLES)
"""Ways of acquisition; an image's ``source`` is one of them."""


@dataclass(frozen=True)
class _Kind:
    """A class: its share of all lesions, its weight in each style, how it looks.

    Shares are like HAM10000's, with the rarest classes raised. Styles see different mixes of
    classes and some lack one, as HAM10000's sources do.
    """

    share: float
    weights: tuple[float, float, float, float]
    look: Look


_KINDS = {
    "akiec": _Kind(
        0.08,
        (1, 2, 1, 0),
        Look((0.74, 0.48, 0.42), 0.56, 0.25, 0.12, 0.16, Features(vessels=0.35, scale=0.8)),
    ),
    "bcc": _Kind(
        0.10,
        (1, 2, 2, 1),
        Look((0.78, 0.54, 0.50), 0.52, 0.22, 0.12, 0.10, Features(vessels=0.85, veil=0.3)),
    ),
    "bkl": _Kind(
        0.14,
        (2, 2, 1, 1),
        Look(
            (0.58, 0.43, 0.30), 0.56, 0.2, 0.16, 0.04, Features(globules=0.35, scale=0.2, milia=0.8)
        ),
    ),
    "df": _Kind(
        0.05,
        (2, 1, 1, 1),
        Look((0.63, 0.45, 0.36), 0.46, 0.1, 0.05, 0.18, Features(network=0.5, white_centre=0.9)),
    ),
    "mel": _Kind(
        0.14,
        (1, 1, 3, 1),
        Look(
            (0.38, 0.25, 0.20),
            0.62,
            0.4,
            0.24,
            0.06,
            Features(network=0.4, globules=0.35, variegation=0.85, veil=0.6),
        ),
    ),
    "nv": _Kind(
        0.44,
        (3, 1, 2, 2),
        Look(
            (0.48, 0.32, 0.23),
            0.50,
            0.15,
            0.07,
            0.10,
            Features(network=0.65, globules=0.3, variegation=0.15),
        ),
    ),
    "vasc": _Kind(
        0.05,
        (2, 1, 0, 2),
        Look((0.60, 0.22, 0.25), 0.46, 0.15, 0.1, 0.06, Features(lacunae=0.9)),
    ),
}

_FEWEST_LESIONS = 6
"""Lesions of a rare class where there are enough in all: one each to split and share out."""

_VIEWS = (0.5, 0.3, 0.2)
"""Shares of lesions with one, two and three views."""


def synthetic_lesion_images(
    n_lesions: int,
    seed: int,
    *,
    classes: ClassMap = HAM10000_CLASSES,
    style_names: Sequence[str] = STYLES,
) -> list[LesionImage]:
    """Make up lesions of one to three views each.

    Every image is drawn when it is read, always the same for the same seed, number and class;
    a process keeps the last two thousand (some 40 MB), as a run reads them more than once.

    Parameters
    ----------
    n_lesions : int
        At least 1.
    seed : int
        At least 0.
    classes : ClassMap
        Some of HAM10000's seven codes.
    style_names : sequence of str
        Some of `STYLES`; they become the images' ``source``.

    Returns
    -------
    list of LesionImage
        Sorted by image id; ``read`` returns a PNG of 96 x 96 pixels.

    Raises
    ------
    SettingsError
        A class or style that cannot be drawn, or no lesions.
    """
    unknown = [c for c in classes.codes if c not in _KINDS]
    unknown += [s for s in style_names if s not in _STYLES]
    if unknown or not classes.codes or not style_names or n_lesions < 1 or seed < 0:
        raise SettingsError(
            f"cannot make {n_lesions} lesions with seed {seed} of classes "
            f"{', '.join(classes.codes)} in styles {', '.join(style_names)}; there are classes "
            f"{', '.join(_KINDS)} and styles {', '.join(STYLES)}"
        )
    rng = np.random.default_rng([seed, n_lesions])
    labels = rng.permutation(np.repeat(classes.codes, _lesions_per_class(n_lesions, classes)))
    images = []
    for number, label in enumerate(labels.tolist()):
        kind = _KINDS[label]
        weights = np.array([kind.weights[STYLES.index(s)] for s in style_names], np.float64)
        weights = weights if weights.sum() else np.ones_like(weights)
        style = style_names[rng.choice(len(style_names), p=weights / weights.sum())]
        lesion_id = f"made-{seed}-{number:05d}"
        for view in range(1 + int(rng.choice(len(_VIEWS), p=_VIEWS))):
            image_id = f"{lesion_id}-{view + 1}"
            read = partial(_draw_png, label, style, seed, number, view)
            images.append(
                LesionImage(image_id, lesion_id, label, style, f"made up:{image_id}.png", read)
            )
    return images


def write_class_folders(images: Sequence[LesionImage], folder: Path) -> None:
    """Write images as one folder per class: ``folder/<label>/<image id>.<its format's suffix>``.

    Raises StorageFull when the folder cannot be written.
    """
    for image in images:
        write_atomically(folder / _place(image), image.read())


def write_case_list(images: Sequence[LesionImage], folder: Path) -> None:
    """Write ``cases.csv`` beside what `write_class_folders` wrote, with lesion ids and sources."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["image_path", "image_id", "lesion_id", "diagnosis", "source"])
    for image in images:
        row = [_place(image), image.image_id, image.lesion_id, image.label, image.source]
        table.writerow(row)
    write_atomically(folder / "cases.csv", text.getvalue().encode())


def _place(image: LesionImage) -> str:
    return f"{image.label}/{image.image_id}{Path(image.location).suffix.lower()}"


def _lesions_per_class(n_lesions: int, classes: ClassMap) -> list[int]:
    """Shares as whole numbers, rare classes raised to `_FEWEST_LESIONS` where there are enough."""
    shares = np.array([_KINDS[c].share for c in classes.codes])
    exact = n_lesions * shares / shares.sum()
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: n_lesions - counts.sum()]] += 1
    fewest = min(_FEWEST_LESIONS, n_lesions // len(classes))
    while counts.min() < fewest:
        counts[counts.argmax()] -= 1
        counts[counts.argmin()] += 1
    return [int(n) for n in counts]


@lru_cache(maxsize=2048)
def _draw_png(label: str, style: str, seed: int, number: int, view: int) -> bytes:
    pixels = draw_view(_KINDS[label].look, _STYLES[style], [seed, number], view)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG", compress_level=1)
    return encoded.getvalue()
