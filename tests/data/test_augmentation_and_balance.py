import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.data.augmentation import CONTRAST, LUMINANCE, augment, relight, turn
from common.data.balance import ABSENT_CLASS, class_log_priors, pooled_class_shares


def noise(n: int, size: int = 16, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def test_turns_are_the_eight_symmetries() -> None:
    image = noise(1)[0]
    turned = turn(np.stack([image] * 8), np.arange(8))
    assert len({t.tobytes() for t in turned}) == 8
    pixels = sorted(map(bytes, image.reshape(-1, 3)))
    for k, t in enumerate(turned):
        assert sorted(map(bytes, t.reshape(-1, 3))) == pixels
        flipped = image[:, ::-1] if k >= 4 else image
        assert (t == np.rot90(flipped, k % 4)).all()


def test_turning_keeps_the_order_of_images() -> None:
    images = np.arange(40, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    turned = turn(images, np.random.default_rng(1).integers(8, size=40))
    assert (turned == images).all()


@given(st.integers(0, 2**32), st.floats(*LUMINANCE), st.floats(*CONTRAST))
def test_hue_is_preserved(seed: int, luminance: float, contrast: float) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(90, 160, (3, 8, 8, 3), dtype=np.uint8)  # no value gets clipped
    relit = relight(images, np.full(3, luminance), np.full(3, contrast)).astype(float)
    before = images.astype(float)
    # Hue depends on the ratios of channel differences: one factor for all three keeps it.
    for a, b in ((0, 1), (1, 2), (2, 0)):
        expected = luminance * contrast * (before[..., a] - before[..., b])
        assert np.abs((relit[..., a] - relit[..., b]) - expected).max() <= 1.0


def test_relighting_by_one_changes_nothing() -> None:
    images = noise(3)
    assert (relight(images, np.ones(3), np.ones(3)) == images).all()


def test_relighting_is_its_formula() -> None:
    images = noise(2)
    luminance, contrast = np.array([0.9, 1.1]), np.array([1.15, 0.85])
    for i in range(2):
        mean = images[i].mean()
        exact = luminance[i] * (mean + contrast[i] * (images[i] - mean))
        relit = relight(images, luminance, contrast)[i].astype(float)
        assert np.abs(relit - np.clip(exact, 0, 255)).max() <= 0.51


def test_augmentation_depends_on_the_generator_only() -> None:
    images = noise(20)
    original = images.copy()
    same = [augment(images, np.random.default_rng(5)) for _ in range(2)]
    assert (same[0] == same[1]).all()
    assert (augment(images, np.random.default_rng(6)) != same[0]).any()
    assert (images == original).all(), "the input was changed"
    assert same[0].dtype == np.uint8 and same[0].shape == images.shape
    assert augment(images[:0], np.random.default_rng(0)).shape == (0, 16, 16, 3)


def test_augmentation_is_fast() -> None:
    images, rng = noise(64, 64), np.random.default_rng(0)
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        augment(images, rng)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.010, "3 ms on an idle core"


def test_log_priors() -> None:
    priors = class_log_priors(np.array([0, 0, 0, 2]), 4)
    assert priors.dtype == np.float32
    np.testing.assert_allclose(
        priors, [np.log(0.75), ABSENT_CLASS, np.log(0.25), ABSENT_CLASS], rtol=1e-6
    )
    halved = class_log_priors(np.array([0, 0, 0, 2]), 4, tau=0.5)
    np.testing.assert_allclose(halved[[0, 2]], priors[[0, 2]] / 2)
    assert (class_log_priors(np.zeros(0, np.int64), 3) == ABSENT_CLASS).all()


def test_pooled_shares_are_those_of_the_counts_where_all_classes_were_counted() -> None:
    assert pooled_class_shares(np.array([70, 20, 10])) == pytest.approx((0.7, 0.2, 0.1))
    assert pooled_class_shares(np.array([70, 20, 0])) == ()
