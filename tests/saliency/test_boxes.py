import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from common.saliency.boxes import (
    RULES,
    SMALLEST,
    Box,
    BoxRule,
    box_of_heat,
    centre_box,
    spread_of,
    square_around,
    square_at,
)
from common.saliency.quality import overlap, share_kept

_SIDES = st.integers(1, 5000)
_RULE = RULES["contrast"]
_HEAT = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, max_side=28),
    elements=st.floats(0, 1000, width=32),
)


@given(_HEAT, _SIDES, _SIDES)
def test_a_box_lies_in_its_frame(heat: np.ndarray, width: int, height: int) -> None:
    box = box_of_heat(heat, width, height, _RULE)
    assert 0 <= box.left < box.right <= width and 0 <= box.top < box.bottom <= height
    if box != (0, 0, width, height):
        assert box.right - box.left == box.bottom - box.top
        assert box.right - box.left >= SMALLEST * min(width, height) - 1


@given(st.integers(2, 12), st.integers(2, 12), st.integers(-2, 2), st.integers(-2, 2))
def test_the_box_moves_with_the_heat(x: int, y: int, dx: int, dy: int) -> None:
    def box(column: int, row: int) -> Box:
        heat = np.zeros((28, 28), np.float32)
        heat[row + 6 : row + 9, column + 6 : column + 9] = 1
        return box_of_heat(heat, 1120, 1120, _RULE)

    here, there = box(x, y), box(x + dx, y + dy)
    assert abs(there.left - here.left - 40 * dx) <= 18  # a step of the grid
    assert abs(there.top - here.top - 40 * dy) <= 18
    assert here.right - here.left == there.right - there.left


def test_side_and_centre_of_a_known_spot() -> None:
    heat = np.zeros((10, 10), np.float32)
    heat[4:6, 3:5] = 7  # evenly over a fifth of the width: deviation 0.2 / sqrt(12)
    spread = spread_of(heat, 1.0)
    assert spread is not None
    assert (spread.x, spread.y) == pytest.approx((0.4, 0.5))
    assert (spread.width, spread.height) == pytest.approx((0.2 / 12**0.5,) * 2)
    box = box_of_heat(heat, 1000, 1000, BoxRule(1.0, 12**0.5 * 1.5))
    assert box == pytest.approx((100, 200, 700, 800), abs=16)


@pytest.mark.parametrize("heat", [np.zeros((7, 7)), np.ones((7, 7)), np.full((7, 7), np.nan)])
def test_the_whole_frame_where_nothing_stands_out(heat: np.ndarray) -> None:
    assert box_of_heat(heat.astype(np.float32), 200, 150, _RULE) == Box(0, 0, 200, 150)


@given(_HEAT, st.floats(-1e-6, 1e-6))
def test_last_bits_move_a_box_by_a_step_at_most(heat: np.ndarray, noise: float) -> None:
    noisy = (heat * (1 + noise)).astype(np.float32)
    spreads = spread_of(heat, 2.0), spread_of(noisy, 2.0)
    if spreads[0] is None or spreads[1] is None:
        return
    boxes = [box_of_heat(h, 640, 640, _RULE) for h in (heat, noisy)]
    assert max(abs(a - b) for a, b in zip(*boxes, strict=True)) <= 20


def test_squares() -> None:
    assert centre_box(200, 150) == Box(25, 0, 175, 150)
    assert square_around(Box(60, 40, 140, 100), 200, 150) == pytest.approx(
        (60, 30, 140, 110), abs=3
    )
    assert square_at(0, 0, 1000, 200, 150) == Box(0, 0, 150, 150)
    assert square_at(199, 149, 1, 200, 150).right == 200


_BOX = st.builds(
    lambda x, y, w, h: Box(x, y, x + w, y + h),
    *[st.integers(0, 50)] * 2,
    *[st.integers(1, 50)] * 2,
)


@given(_BOX, _BOX)
def test_overlap(a: Box, b: Box) -> None:
    grid = np.zeros((2, 100, 100), bool)
    for k, box in enumerate((a, b)):
        grid[k, box.top : box.bottom, box.left : box.right] = True
    assert overlap(a, b) == pytest.approx((grid[0] & grid[1]).sum() / (grid[0] | grid[1]).sum())
    assert overlap(a, b) == overlap(b, a) and overlap(a, a) == 1
    assert share_kept(grid[0], b) == pytest.approx((grid[0] & grid[1]).sum() / grid[0].sum())
