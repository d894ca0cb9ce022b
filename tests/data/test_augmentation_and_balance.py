import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.data.augmentation import CONTRAST, LUMINANCE, augment, relight, turn
from common.data.balance import ABSENT_CLASS, class_log_priors, smote
from common.data.cases import Cases


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


def cases_of(counts: dict[int, int], level: dict[int, int] | None = None) -> Cases:
    """Cases whose pixel values lie within 10 of their class's own level."""
    labels = np.repeat(list(counts), list(counts.values())).astype(np.int64)
    base = np.array([(level or {}).get(c, 30 * c + 20) for c in labels])
    spread = np.random.default_rng(1).integers(0, 10, (len(labels), 8, 8, 3))
    ids = tuple(f"c{i}" for i in range(len(labels)))
    pixels = (base[:, None, None, None] + spread).astype(np.uint8)
    return Cases(pixels, labels, ids, ids)


def test_smote_fills_rare_classes_from_their_own_cases() -> None:
    cases = cases_of({0: 40, 1: 12, 2: 12, 3: 4, 4: 2, 5: 1})
    more, notes = smote(cases, 7, seed=3)
    # The median of 40, 12, 12, 4, 2, 1 is 8.
    assert more.class_counts(7).tolist() == [40, 12, 12, 8, 8, 1, 0]
    assert len(notes) == 1 and "class 5" in notes[0]
    assert (more.images[: len(cases)] == cases.images).all()
    made = more.subset(np.arange(len(cases), len(more)))
    assert all(i.startswith("smote-") for i in (*made.case_ids, *made.lesion_ids))
    assert len(set(more.case_ids)) == len(more)
    for image, label in zip(made.images, made.labels, strict=True):
        own = cases.images[cases.labels == label]
        assert (image >= own.min(axis=0)).all() and (image <= own.max(axis=0)).all()


def test_smote_is_deterministic() -> None:
    cases = cases_of({0: 20, 1: 10, 2: 3})
    once, again, other = (smote(cases, 3, seed)[0].images for seed in (1, 1, 2))
    assert (once == again).all() and (once != other).any()


@pytest.mark.parametrize("counts", [{}, {2: 5}, {0: 4, 1: 4}, {0: 1, 1: 1}])
def test_smote_with_nothing_to_do(counts: dict[int, int]) -> None:
    cases = cases_of(counts)
    more, notes = smote(cases, 3, seed=0)
    assert more.case_ids == cases.case_ids and notes == []
