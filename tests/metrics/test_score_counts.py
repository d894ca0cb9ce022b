"""Counts: additive, and nothing that is not counts gets in."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.metrics import BINS, ScoreCounts


def sample(seed: int, n: int, n_classes: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits and labels that agree more often than by chance."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    logits = rng.normal(size=(n, n_classes)) * 2
    logits[np.arange(n), labels] += 2
    return logits, labels


def assert_same(a: ScoreCounts, b: ScoreCounts) -> None:
    np.testing.assert_array_equal(a.to_array(), b.to_array())


sizes = st.integers(0, 60)
classes = st.integers(2, 9)
seeds = st.integers(0, 2**32 - 1)


@given(seeds, sizes, classes, st.floats(0, 1))
@settings(max_examples=50)
def test_counts_of_a_union_are_the_sum(seed: int, n: int, n_classes: int, cut: float) -> None:
    logits, labels = sample(seed, n, n_classes)
    k = int(cut * n)
    parts = ScoreCounts.from_logits(logits[:k], labels[:k]) + ScoreCounts.from_logits(
        logits[k:], labels[k:]
    )
    assert_same(parts, ScoreCounts.from_logits(logits, labels))
    assert parts.n == n


@given(seeds, sizes, classes)
@settings(max_examples=50)
def test_roundtrips(seed: int, n: int, n_classes: int) -> None:
    counts = ScoreCounts.from_logits(*sample(seed, n, n_classes))
    assert_same(ScoreCounts.from_json(counts.to_json()), counts)
    assert_same(ScoreCounts.from_array(counts.to_array()), counts)


@given(seeds, sizes, classes)
@settings(max_examples=30)
def test_probabilities_count_as_their_logits(seed: int, n: int, n_classes: int) -> None:
    logits, labels = sample(seed, n, n_classes)
    exp = np.exp(logits)
    probabilities = exp / exp.sum(axis=1, keepdims=True)
    a = ScoreCounts.from_logits(logits, labels)
    b = ScoreCounts.from_probabilities(probabilities, labels)
    np.testing.assert_array_equal(a.confusion, b.confusion)
    # Rounding may move a score over the edge of its bin, no further.
    assert np.abs(np.cumsum(a.positives - b.positives, axis=1)).max(initial=0) <= 1


def test_a_class_that_a_model_does_not_have_is_counted_as_padding_counts_it() -> None:
    logits, labels = sample(1, 40, 3)
    with_missing = np.pad(logits, ((0, 0), (0, 1)), constant_values=-np.inf)
    expected = ScoreCounts.from_logits(logits, labels).padded(4)
    assert_same(ScoreCounts.from_logits(with_missing, labels), expected)
    ScoreCounts.from_array(expected.to_array())


def test_sum_with_a_class_appended_during_the_run() -> None:
    small = ScoreCounts.from_logits(*sample(1, 30, 3))
    large = ScoreCounts.from_logits(*sample(2, 20, 4))
    both = small + large
    assert both.confusion.shape == (4, 4)
    assert both.n == 50
    assert_same(both, large + small)
    ScoreCounts.from_json(both.to_json())
    with pytest.raises(ValueError, match="shrink"):
        large.padded(3)


def test_classes_placed_elsewhere_count_as_if_they_had_been_there_at_first() -> None:
    logits, labels = sample(5, 60, 3)
    places = np.array([4, 0, 2])
    moved = np.full((60, 5), -np.inf)
    moved[:, places] = logits
    expected = ScoreCounts.from_logits(moved, places[labels])
    assert_same(ScoreCounts.from_logits(logits, labels).placed([4, 0, 2], 5), expected)
    for wrong in ([0, 1], [0, 1, 1], [0, 1, 5], [-1, 0, 1]):
        with pytest.raises(ValueError, match="cannot be placed"):
            ScoreCounts.zeros(3).placed(wrong, 5)


def test_extreme_scores_fall_into_the_outer_bins() -> None:
    counts = ScoreCounts.from_probabilities([[1.0, 0.0], [1.0, 0.0]], [0, 1])
    assert counts.positives[0, BINS - 1] == 1
    assert counts.negatives[0, BINS - 1] == 1
    assert counts.positives[1, 0] == 1


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        ([[0.0, np.nan]], [0]),
        ([[0.0, np.inf]], [0]),
        ([[-np.inf, -np.inf]], [0]),
        ([[0.0, 1.0]], [2]),
        ([[0.0, 1.0]], [-1]),
        ([[0.0, 1.0]], [0, 1]),
        ([[0.0]], [0]),
    ],
)
def test_scores_that_cannot_be_counted(logits: Any, labels: Any) -> None:
    with pytest.raises(ValueError):
        ScoreCounts.from_logits(logits, labels)


def _replace(key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda good: {**good, key: value}


def _poke(key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    def change(good: dict[str, Any]) -> dict[str, Any]:
        good[key][0][0] = value
        return good

    return change


@pytest.mark.parametrize(
    "damage",
    [
        lambda good: None,
        lambda good: [good],
        lambda good: {"confusion": good["confusion"]},
        lambda good: {**good, "more": 1},
        _replace("confusion", "text"),
        _replace("confusion", []),
        _replace("confusion", [[1, 2], [3]]),
        _replace("confusion", [[1, 2, 3], [1, 2, 3]]),
        _replace("confusion", [[0, 0], [0, 0]]),
        _replace("positives", [[0] * BINS]),
        _replace("positives", [[0] * (BINS - 1)] * 3),
        _replace("negatives", [[0] * BINS] * 3),
        _replace("negatives", [[0] * 10**6] * 3),
        _poke("confusion", -1),
        _poke("confusion", 1.5),
        _poke("confusion", float("nan")),
        _poke("confusion", True),
        _poke("confusion", "1"),
        _poke("confusion", None),
        _poke("confusion", [1]),
        _poke("confusion", 10**30),
        _poke("positives", 999),
        _poke("negatives", 999),
    ],
)
def test_malformed_json_is_refused(damage: Callable[[dict[str, Any]], Any]) -> None:
    good = ScoreCounts.from_logits(*sample(3, 30, 3)).to_json()
    with pytest.raises(ValueError) as caught:
        ScoreCounts.from_json(damage(good))
    assert len(str(caught.value)) < 100


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=3), st.lists))
@settings(max_examples=50)
def test_arbitrary_json_is_refused_with_a_reason(value: Any) -> None:
    for payload in (value, {"confusion": value, "positives": value, "negatives": value}):
        with pytest.raises(ValueError):
            ScoreCounts.from_json(payload)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(0, dtype=np.int64),
        np.zeros((1, 5), dtype=np.int64),
        np.zeros(5, dtype=np.float64),
        np.array([-1, 0], dtype=np.int64),
        np.array([2**62, 0], dtype=np.int64),
        np.array([2, 0, 0], dtype=np.int64),
    ],
)
def test_malformed_array_is_refused(array: NDArray[Any]) -> None:
    with pytest.raises(ValueError):
        ScoreCounts.from_array(array)


def test_array_with_one_count_changed_is_refused() -> None:
    good = ScoreCounts.from_logits(*sample(4, 30, 3)).to_array()
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(good), 50):
        for change in (-1, 1, 2**60):
            bad = good.copy()
            bad[position] += change
            with pytest.raises(ValueError):
                ScoreCounts.from_array(bad)
