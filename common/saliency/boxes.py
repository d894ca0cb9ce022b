"""From a heat map to the square that is cut out of a picture."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SMALLEST = 0.4
"""Of the frame's shorter side: a crop is never smaller."""

_FLAT = 0.05
"""Highest less lowest heat, over the highest: below, nothing stands out."""

_STEPS = 64
"""Corners lie on a grid of so many steps a side: the last bits of the heat, which differ from
machine to machine, hardly ever move them."""


@dataclass(frozen=True)
class BoxRule:
    """How a heat map becomes a box.

    Parameters
    ----------
    power : float
        Heat counts by this power: the higher, the less pulls what is lukewarm everywhere.
    reach : float
        Half a side, in standard deviations of where the heat is along its longer axis.
    """

    power: float
    reach: float


RULES: dict[str, BoxRule] = {"contrast": BoxRule(2.0, 1.9), "grad-cam": BoxRule(1.0, 1.3)}
"""By method, chosen on HAM10000's training part: the best overlap with the lesion's box among
rules that keep about 95 % of the lesion on average."""


class Box(NamedTuple):
    """Pixels of a picture: from (left, top) up to, without, (right, bottom)."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def area(self) -> int:
        """Pixels inside; 0 for a box whose sides have crossed."""
        return max(self.right - self.left, 0) * max(self.bottom - self.top, 0)


@dataclass(frozen=True)
class Spread:
    """Where heat is: mean and standard deviation along x and y, as shares of width and height."""

    x: float
    y: float
    width: float
    height: float


def spread_of(heat: NDArray[np.float32], power: float) -> Spread | None:
    """First and second moments of a heat map.

    Parameters
    ----------
    heat : float array, shape (rows, columns)
        Over the whole frame; only differences from its lowest value count.
    power : float

    Returns
    -------
    Spread or None
        None where nothing stands out, or a value is not finite.
    """
    values = heat.astype(np.float64)
    if not np.isfinite(values).all() or values.max() <= 0:
        return None
    lowest, highest = values.min(), values.max()
    if highest - lowest <= _FLAT * highest:
        return None
    weights = ((values - lowest) / (highest - lowest)) ** power
    weights /= weights.sum()
    (x, width), (y, height) = _moments(weights.sum(axis=0)), _moments(weights.sum(axis=1))
    return Spread(x, y, width, height)


def _moments(weights: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and standard deviation over 0..1; each cell's weight lies evenly over the cell."""
    cells = len(weights)
    places = (np.arange(cells) + 0.5) / cells
    mean = float(weights @ places)
    return mean, float(np.sqrt(weights @ (places - mean) ** 2 + 1 / (12 * cells**2)))


def box_of_heat(heat: NDArray[np.float32], width: int, height: int, rule: BoxRule) -> Box:
    """The square that holds what stands out in a frame; the whole frame where nothing does.

    Parameters
    ----------
    heat : float array, shape (rows, columns)
        Over the whole frame, whatever its shape.
    width, height : int
        The frame's, in pixels.
    rule : BoxRule
    """
    spread = spread_of(heat, rule.power)
    if spread is None:
        return Box(0, 0, width, height)
    side = 2 * rule.reach * max(spread.width * width, spread.height * height)
    return square_at(spread.x * width, spread.y * height, side, width, height)


def centre_box(width: int, height: int) -> Box:
    """The largest centred square of a frame."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return Box(left, top, left + side, top + side)


def square_around(box: Box, width: int, height: int, margin: float = 0.0) -> Box:
    """The square around a box, with a margin on each side as a share of its longer side."""
    side = (1 + 2 * margin) * max(box.right - box.left, box.bottom - box.top)
    return square_at((box.left + box.right) / 2, (box.top + box.bottom) / 2, side, width, height)


def square_at(x: float, y: float, side: float, width: int, height: int) -> Box:
    """A square near (x, y), moved and shrunk or grown as needed to lie in the frame.

    Its side is from `SMALLEST` of the frame's shorter side to all of that; sides and corners
    are rounded to the grid.
    """
    shorter = min(width, height)
    step = shorter / _STEPS
    wanted = round(min(max(side, SMALLEST * shorter), shorter) / step) * step
    pixels = max(1, min(round(wanted), shorter))
    left = _place(round((x - wanted / 2) / step) * step, width - pixels)
    top = _place(round((y - wanted / 2) / step) * step, height - pixels)
    return Box(left, top, left + pixels, top + pixels)


def _place(position: float, last: int) -> int:
    return max(0, min(round(position), last))
