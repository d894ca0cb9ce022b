"""Pictures to pretrain on: drawn from numbers (textures, dead leaves, blobs), or of a folder.

What a network learns from such pictures carries over to real ones (dead leaves, spectra of
natural images: Baradad et al., arXiv 2106.05963), and federated training gains from starting
there (fractals: Chen et al., arXiv 2206.11488). Nobody's images are in the drawn ones.
"""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from common.classes import ClassMap
from common.data.cases import LesionImage
from common.data.preparation import prepare_cases
from common.errors import DataNotFound

Plane = NDArray[np.float64]
Picture = NDArray[np.float64]

_SKIN = (205.0, 160.0, 140.0)
"""Half of the palettes are around it: where colours lie close together, small differences count."""

_ANY = "picture"
"""Pictures have no class; cases have one."""

_SUFFIXES = {".jpg", ".jpeg", ".png"}
_FINER = 2
"""Dead leaves are drawn that many times as large and averaged, so that edges are smooth."""


def procedural_pictures(n: int, size: int, seed: int) -> NDArray[np.uint8]:
    """``n`` RGB pictures, uint8 (n, size, size, 3); one depends on the seed and its number only."""
    pictures = np.empty((n, size, size, 3), np.uint8)
    for number in range(n):
        pictures[number] = _Brush(size, np.random.default_rng([seed, number])).picture()
    return pictures


class _Brush:
    """Draws one picture from one stream of random numbers."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self._size = size
        self._rng = rng
        self._palette = self._colours()

    def picture(self) -> NDArray[np.uint8]:
        """A texture, dead leaves or a blob; every fifth a little out of focus."""
        kind = self._rng.choice(3, p=(0.25, 0.3, 0.45))
        drawn = (self._texture, self._leaves, self._blob)[kind]()
        pixels = np.clip(drawn, 0, 255).astype(np.uint8)
        if self._rng.random() < 0.2:
            blur = ImageFilter.GaussianBlur(self._rng.uniform(0.3, 1.2) * self._size / 64)
            pixels = np.asarray(Image.fromarray(pixels).filter(blur))
        return pixels

    def _colours(self) -> Picture:
        """3 to 8 RGB colours, float64 (n, 3) of 0 to 255, around one of them."""
        rng = self._rng
        middle = rng.uniform(0, 255, 3)
        if rng.random() < 0.5:
            middle = np.array(_SKIN) + rng.normal(0, 30, 3)
        spread = rng.uniform(15, 110) * rng.uniform(0.3, 1, 3)
        return np.clip(middle + rng.normal(0, 1, (rng.integers(3, 9), 3)) * spread, 0, 255)

    def _noise(self, slope: tuple[float, float] = (0.6, 2.4)) -> Plane:
        """A plane of mean 0 and deviation 1 whose amplitude falls with frequency.

        Natural images fall with a slope near 1; a quarter of the planes keep to a narrow band
        instead, which makes stripes and nets. Some are drawn out in one direction.
        """
        rng, size = self._rng, self._size
        rows, columns = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
        angle, stretch = rng.uniform(0, math.pi), 1.0
        if rng.random() < 1 / 3:
            stretch = rng.uniform(1, 5)
        along = columns * math.cos(angle) + rows * math.sin(angle)
        across = (rows * math.cos(angle) - columns * math.sin(angle)) * stretch
        frequency = np.hypot(along, across)
        frequency[0, 0] = 1.0
        amplitude = frequency ** -rng.uniform(*slope)
        if rng.random() < 0.25:
            centre, width = rng.uniform(0.05, 0.3), rng.uniform(0.01, 0.08)
            amplitude = np.exp(-(((frequency - centre) / width) ** 2))
        amplitude[0, 0] = 0.0
        phases = np.exp(2j * math.pi * rng.random(amplitude.shape))
        plane = np.asarray(np.fft.irfft2(amplitude * phases, s=(size, size)), np.float64)
        return np.asarray((plane - plane.mean()) / (plane.std() + 1e-9), np.float64)

    def _mixed(self, first: Picture, second: Picture, steepest: float) -> Picture:
        """One picture or colour where a plane of noise is high, the other where it is low."""
        high = 1 / (1 + np.exp(-self._noise() * self._rng.uniform(1, steepest)))[..., None]
        return np.asarray(first * high + second * (1 - high), np.float64)

    def _texture(self) -> Picture:
        colours = self._palette
        drawn = self._mixed(colours[0], colours[1], 6)
        if self._rng.random() < 0.6:
            drawn = self._mixed(drawn, colours[2], 8)
        return drawn + self._grain(18)

    def _grain(self, strongest: float) -> Picture:
        return self._noise()[..., None] * self._rng.uniform(0, strongest)

    def _leaves(self) -> Picture:
        """Ellipses, polygons or lines over each other, of many small and few large sizes."""
        rng, side = self._rng, self._size * _FINER
        canvas = Image.new("RGB", (side, side), _ink(self._palette[0]))
        draw = ImageDraw.Draw(canvas)
        kind = rng.integers(4)  # the last one: all of them
        for _ in range(int(rng.choice((8, 25, 80)))):
            radius = min(0.45 * side, (rng.pareto(1.2) + 1) * side / 64 + 1)
            colour = self._palette[rng.integers(len(self._palette))] + rng.normal(0, 12, 3)
            self._leaf(draw, int(kind if kind < 3 else rng.integers(3)), radius, _ink(colour))
        small = canvas.resize((self._size, self._size), Image.Resampling.BOX)
        drawn = np.asarray(small, np.float64)
        return drawn + self._grain(25) if rng.random() < 0.7 else drawn

    def _leaf(
        self, draw: ImageDraw.ImageDraw, kind: int, radius: float, ink: tuple[int, int, int]
    ) -> None:
        rng, side = self._rng, self._size * _FINER
        x, y = rng.uniform(0, side, 2)
        if kind == 0:
            height = radius * rng.uniform(0.4, 1)
            draw.ellipse([x - radius, y - height, x + radius, y + height], fill=ink)
        elif kind == 1:
            angles = np.sort(rng.uniform(0, 2 * math.pi, rng.integers(3, 8)))
            reach = radius * rng.uniform(0.5, 1.3, len(angles))
            corners = zip(x + reach * np.cos(angles), y + reach * np.sin(angles), strict=True)
            draw.polygon([(float(a), float(b)) for a, b in corners], fill=ink)
        else:
            angle, length = rng.uniform(0, math.pi), rng.uniform(0.08, 0.95) * side
            end = (x + length * math.cos(angle), y + length * math.sin(angle))
            draw.line([(x, y), end], fill=ink, width=int(rng.integers(1, 5)))

    def _blob(self) -> Picture:
        """A patch with an irregular border and a texture of its own; lines over some of them."""
        rng, size, colours = self._rng, self._size, self._palette
        rows, columns = np.mgrid[:size, :size].astype(np.float64)
        x, y = rng.uniform(0.3, 0.7, 2) * size
        distance = np.hypot((columns - x) * rng.uniform(0.7, 1.4), rows - y) * 64 / size
        distance += self._noise((1, 2)) * rng.uniform(0.5, 6)
        edge = (distance - rng.uniform(6, 28)) * rng.uniform(0.2, 2)
        inside = 1 / (1 + np.exp(np.clip(edge, -50, 50)))[..., None]
        patch = self._mixed(colours[1], colours[2], 6) + self._grain(20)
        drawn = patch * inside + (colours[0] + self._grain(12)) * (1 - inside)
        return self._with_lines(drawn) if rng.random() < 0.3 else drawn

    def _with_lines(self, drawn: Picture) -> Picture:
        rng, size = self._rng, self._size
        picture = Image.fromarray(np.clip(drawn, 0, 255).astype(np.uint8))
        draw = ImageDraw.Draw(picture)
        for _ in range(rng.integers(2, 20)):
            x, y = rng.uniform(0, size, 2)
            angle, length = rng.uniform(0, 2 * math.pi), rng.uniform(0.03, 0.8) * size
            end = (x + length * math.cos(angle), y + length * math.sin(angle))
            draw.line([(x, y), end], fill=_ink(self._palette[-1] / 2))
        return np.asarray(picture, np.float64)


def _ink(colour: Picture) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in np.clip(colour, 0, 255))
    return red, green, blue


def folder_pictures(folder: Path, size: int) -> NDArray[np.uint8]:
    """The centred square of every JPEG and PNG file below a folder, uint8 (n, size, size, 3).

    Raises DataNotFound where there are none, DataUnreadable for one that cannot be decoded.
    """
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in _SUFFIXES and f.is_file())
    if not files:
        raise DataNotFound(
            f"no JPEG or PNG file below {folder}; name another folder, or procedural:30000"
        )
    images = [LesionImage(f.stem, f.stem, _ANY, "", str(f), f.read_bytes) for f in files]
    return prepare_cases(images, ClassMap((_ANY,)), size=size).images
