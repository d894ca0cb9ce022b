"""Drawing one view of one made-up lesion; `common.data.synthetic` decides which to draw.

Coordinates are those of the lesion: the frame of an unmoved view spans -1..1 in both directions.
Colours are RGB in 0..1.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import map_coordinates

SIZE = 96
"""Side of a drawn image in pixels."""

Plane = NDArray[np.float32]
Colour = tuple[float, float, float]

_SKIN: Colour = (0.85, 0.68, 0.59)
_BLUE_GREY: Colour = (0.42, 0.46, 0.58)
_VESSEL_RED: Colour = (0.66, 0.16, 0.18)
_SCALE_WHITE: Colour = (0.90, 0.84, 0.76)
_SCAR_WHITE: Colour = (0.90, 0.80, 0.76)
_MILIUM_YELLOW: Colour = (0.88, 0.80, 0.62)
_LACUNA_RED: Colour = (0.42, 0.05, 0.14)
_HAIR: Colour = (0.16, 0.11, 0.09)


@dataclass(frozen=True)
class Features:
    """Strengths in 0..1 of what is seen within a lesion."""

    network: float = 0.0
    globules: float = 0.0
    variegation: float = 0.0
    veil: float = 0.0
    vessels: float = 0.0
    scale: float = 0.0
    lacunae: float = 0.0
    white_centre: float = 0.0
    milia: float = 0.0


@dataclass(frozen=True)
class Look:
    """How a lesion looks.

    Parameters
    ----------
    colour : Colour
    radius : float
        Mean radius; the frame's half width is 1.
    asymmetry, irregularity : float
        Size of slow and fast deviations of the outline, as a share of the radius.
    softness : float
        Width of the border, same unit as the radius.
    features : Features
    """

    colour: Colour
    radius: float
    asymmetry: float
    irregularity: float
    softness: float
    features: Features


@dataclass(frozen=True)
class Style:
    """How a picture is taken; ``hairs`` and ``ruler`` are probabilities, ``blur`` is in pixels."""

    cast: Colour
    contrast: float = 1.0
    lighting: float = 0.05
    vignette: float = 0.0
    blur: float = 0.0
    grain: float = 0.01
    hairs: float = 0.1
    ruler: float = 0.0


def draw_view(look: Look, style: Style, lesion_seed: list[int], view: int) -> NDArray[np.uint8]:
    """Draw view number ``view`` of the lesion that ``look`` and ``lesion_seed`` determine.

    Views share the lesion and its skin; turn, shift, zoom, lighting, hairs and grain differ.

    Returns
    -------
    uint8 array, shape (SIZE, SIZE, 3)
    """
    lesion = np.random.default_rng([*lesion_seed, 0])
    taking = np.random.default_rng([*lesion_seed, 1 + view])
    individual = _individual(look, lesion)
    x, y = _view_coordinates(taking)
    canvas = _skin(x, y, lesion)
    _draw_lesion(canvas, individual, x, y, lesion)
    return _photograph(canvas, style, taking)


def _individual(look: Look, rng: np.random.Generator) -> Look:
    """One lesion of a kind: every trait varies, features may be missing or out of place."""
    strengths = {}
    for feature in fields(Features):
        typical = getattr(look.features, feature.name)
        strength = typical * (rng.random() < 0.8) + rng.normal(0.0, 0.18) * (typical > 0)
        out_of_place = 0.5 * rng.random() * (rng.random() < 0.1)
        strengths[feature.name] = float(np.clip(strength + out_of_place, 0.0, 1.0))
    tint = rng.normal(0.0, 0.06) + rng.normal(0.0, 0.03, size=3)
    red, green, blue = (float(v) for v in np.clip(np.array(look.colour) + tint, 0.05, 0.95))
    return Look(
        colour=(red, green, blue),
        radius=look.radius * float(rng.uniform(0.7, 1.35)),
        asymmetry=look.asymmetry * float(rng.uniform(0.3, 1.6)),
        irregularity=look.irregularity * float(rng.uniform(0.3, 1.6)),
        softness=look.softness * float(rng.uniform(0.6, 1.7)),
        features=Features(**strengths),
    )


def _view_coordinates(rng: np.random.Generator) -> tuple[Plane, Plane]:
    """Lesion coordinates of every pixel of a turned, shifted and zoomed view."""
    axis = (np.arange(SIZE, dtype=np.float32) - (SIZE - 1) / 2) / (SIZE / 2)
    column, row = np.meshgrid(axis, axis)
    angle, zoom = rng.uniform(0, 2 * np.pi), rng.uniform(0.85, 1.2)
    dx, dy = rng.uniform(-0.15, 0.15, size=2)
    cos, sin = np.float32(np.cos(angle) / zoom), np.float32(np.sin(angle) / zoom)
    x: Plane = cos * (column - np.float32(dx)) - sin * (row - np.float32(dy))
    y: Plane = sin * (column - np.float32(dx)) + cos * (row - np.float32(dy))
    return x, y


def _noise(x: Plane, y: Plane, period: float, rng: np.random.Generator) -> Plane:
    """Smooth noise, about normal with unit variance, with bumps about ``period`` wide."""
    grid = rng.normal(size=(32, 32)).astype(np.float32)
    at = np.stack([y / np.float32(period) + 16, x / np.float32(period) + 16])
    # Linear interpolation averages the noise down; 1.5 puts most of its variance back.
    noise: Plane = 1.5 * map_coordinates(grid, at, order=1, mode="grid-wrap")
    return noise


def _blobs(
    x: Plane, y: Plane, n: int, spread: float, radius: float, rng: np.random.Generator
) -> Plane:
    """``n`` round spots within ``spread`` of the middle, each 1 at its centre."""
    spots = np.zeros_like(x)
    for _ in range(n):
        angle, distance = rng.uniform(0, 2 * np.pi), spread * np.sqrt(rng.random())
        r = np.float32(radius * rng.uniform(0.7, 1.4))
        dx = (x - np.float32(distance * np.cos(angle))) / r
        dy = (y - np.float32(distance * np.sin(angle))) / r
        np.maximum(spots, np.exp(-((dx * dx + dy * dy) ** 2)), out=spots)
    return spots


def _blend(canvas: Plane, colour: Colour, alpha: Plane) -> None:
    """Paint ``colour`` over ``canvas`` (SIZE, SIZE, 3) with opacity ``alpha`` (SIZE, SIZE)."""
    canvas += alpha[..., None] * (np.array(colour, np.float32) - canvas)


def _skin(x: Plane, y: Plane, rng: np.random.Generator) -> Plane:
    tone = np.array(_SKIN, np.float32) * np.float32(rng.uniform(0.85, 1.08))
    tone += rng.normal(0.0, 0.02, size=3).astype(np.float32)
    texture = 1 + 0.025 * _noise(x, y, 0.35, rng) + 0.02 * _noise(x, y, 0.06, rng)
    canvas: Plane = (tone * texture[..., None]).astype(np.float32)
    return canvas


def _inside(look: Look, x: Plane, y: Plane, rng: np.random.Generator) -> Plane:
    """Opacity of the lesion: a circle with slow and fast waves in its outline, soft-edged."""
    angle, distance = np.arctan2(y, x), np.hypot(x, y)
    outline = np.ones_like(x)
    for wave in range(1, 9):
        size = look.asymmetry / wave if wave <= 3 else look.irregularity / np.sqrt(wave - 2)
        phase = rng.uniform(0, 2 * np.pi)
        outline += np.float32(size * rng.uniform(0.3, 0.8)) * np.cos(wave * angle + phase)
    edge = (look.radius * outline - distance) / np.float32(look.softness)
    inside: Plane = (1 / (1 + np.exp(-np.clip(2 * edge, -30, 30)))).astype(np.float32)
    return inside


def _draw_lesion(canvas: Plane, look: Look, x: Plane, y: Plane, rng: np.random.Generator) -> None:
    """Paint a lesion and its features. Every random draw is made, whatever the strengths."""
    has, r = look.features, look.radius
    inside = _inside(look, x, y, rng)
    colour = np.array(look.colour)

    _blend(canvas, look.colour, 0.88 * inside)
    mottling = np.clip(_noise(x, y, 0.22, rng), -2, 2)
    canvas *= (1 + (0.05 * mottling * inside))[..., None]

    dark, red = _noise(x, y, 0.3, rng), _noise(x, y, 0.3, rng)
    for plane, to in ((dark, 0.35 * colour), (red, np.add(colour, (0.22, 0.02, 0.02)))):
        patch = np.clip(1.5 * plane - 0.4, 0, 1) * inside
        _blend(canvas, (to[0], to[1], to[2]), np.float32(0.8 * has.variegation) * patch)

    mesh = _mesh(x, y, rng)
    at_rim = np.clip(np.hypot(x, y) / r, 0.4, 1.0)
    darker = 0.45 * colour
    _blend(canvas, (darker[0], darker[1], darker[2]), 0.6 * has.network * mesh * inside * at_rim)
    globules = _blobs(x, y, 16, 0.85 * r, 0.055, rng)
    _blend(canvas, (darker[0], darker[1], darker[2]), 0.7 * has.globules * globules * inside)

    veil = _blobs(x, y, 2, 0.6 * r, 0.5 * r, rng)
    _blend(canvas, _BLUE_GREY, 0.8 * has.veil * veil * inside)
    lines = np.exp(-((_noise(x, y, 0.2, rng) / 0.16) ** 2))
    _blend(canvas, _VESSEL_RED, 0.65 * has.vessels * lines * np.sqrt(inside))
    flakes = np.clip(1.2 * _noise(x, y, 0.1, rng) - 0.3, 0, 1)
    _blend(canvas, _SCALE_WHITE, 0.7 * has.scale * flakes * inside)
    lacunae = _blobs(x, y, 9, 0.7 * r, 0.14, rng)
    _blend(canvas, _LACUNA_RED, 0.75 * has.lacunae * lacunae * inside)
    milia = _blobs(x, y, 14, 0.9 * r, 0.045, rng)
    _blend(canvas, _MILIUM_YELLOW, 0.8 * has.milia * milia * inside)
    scar = np.exp(-((x * x + y * y) / np.float32(0.3 * r * r)))
    _blend(canvas, _SCAR_WHITE, 0.75 * has.white_centre * scar)


def _mesh(x: Plane, y: Plane, rng: np.random.Generator) -> Plane:
    """A honeycomb of lines, slightly warped: a pigment network."""
    k = np.float32(2 * np.pi / rng.uniform(0.14, 0.2))
    turn = rng.uniform(0, np.pi)
    warp = np.float32(0.5) * _noise(x, y, 0.3, rng)
    waves = np.zeros_like(x)
    for third in range(3):
        angle = turn + third * np.pi / 3
        along = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
        waves += np.cos(k * along + warp)
    mesh: Plane = np.clip(0.5 - waves, 0, 1)
    return mesh


def _photograph(canvas: Plane, style: Style, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Add what the way of acquisition adds: light, cast, hairs, ruler, vignette, blur, grain."""
    axis = np.linspace(-1, 1, SIZE, dtype=np.float32)
    column, row = np.meshgrid(axis, axis)
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.float32(style.lighting) * (np.cos(angle) * column + np.sin(angle) * row)
    gain = (rng.uniform(0.93, 1.07) + slope) * np.array(style.cast)[:, None, None]
    canvas = canvas * gain.transpose(1, 2, 0)
    canvas = (0.55 + style.contrast * (canvas - 0.55)).astype(np.float32)

    picture = Image.fromarray(np.clip(255 * canvas, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    if rng.random() < style.hairs:
        _draw_hairs(pen, rng)
    if rng.random() < style.ruler:
        _draw_ruler(pen, rng)
    if style.blur:
        picture = picture.filter(ImageFilter.GaussianBlur(style.blur))

    pixels = np.asarray(picture, np.float32)
    rim = np.clip((np.hypot(column, row) - 0.92) / 0.25, 0, 1)
    pixels = pixels * (1 - np.float32(style.vignette) * rim)[..., None]
    grain = 255 * style.grain * rng.standard_normal(pixels.shape, np.float32)
    return np.clip(pixels + grain, 0, 255).astype(np.uint8)


def _draw_hairs(pen: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    ink = _as_bytes(_HAIR)
    for _ in range(rng.integers(2, 8)):
        start, bend, end = rng.uniform(-10, SIZE + 10, size=(3, 2))
        t = np.linspace(0, 1, 16)[:, None]
        curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end
        pen.line([(float(px), float(py)) for px, py in curve], fill=ink, width=1)


def _draw_ruler(pen: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    edge, gap = SIZE - int(rng.integers(1, 6)), int(rng.integers(5, 9))
    for number, at in enumerate(range(int(rng.integers(gap)), SIZE, gap)):
        length = 9 if number % 5 == 0 else 5
        pen.line([(at, edge), (at, edge - length)], fill=(30, 30, 30), width=1)


def _as_bytes(colour: Colour) -> tuple[int, int, int]:
    red, green, blue = colour
    return round(255 * red), round(255 * green), round(255 * blue)
