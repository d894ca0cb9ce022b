"""Metrics against scikit-learn and against direct computations."""

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    roc_auc_score,
    roc_curve,
)

from common.metrics import ScoreCounts, summarize

CODES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
MEL = CODES.index("mel")
seeds = st.integers(0, 2**32 - 1)


def skewed(seed: int, n: int, scale: float = 2.0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits of ``scale`` with labels as unevenly spread as in HAM10000."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(7, size=n, p=[0.03, 0.05, 0.11, 0.02, 0.11, 0.66, 0.02])
    logits = rng.normal(size=(n, 7))
    logits[np.arange(n), labels] += rng.uniform(0, 3)
    return logits * scale, labels


@given(seeds, st.integers(5, 80))
@settings(max_examples=50)
def test_counted_metrics_equal_sklearn(seed: int, n: int) -> None:
    logits, labels = skewed(seed, n)
    predicted = logits.argmax(axis=1)
    summary = summarize(ScoreCounts.from_logits(logits, labels), CODES)
    assert summary.accuracy.value == pytest.approx(accuracy_score(labels, predicted))
    with warnings.catch_warnings():  # of predictions of a class without cases
        warnings.simplefilter("ignore")
        expected = balanced_accuracy_score(labels, predicted)
    assert summary.balanced_accuracy.value == pytest.approx(expected)
    assert summary.macro_f1.value == pytest.approx(f1_score(labels, predicted, average="macro"))
    for index, code in enumerate(CODES):
        recall = summary.recall[code]
        of_class = labels == index
        assert recall.n == of_class.sum()
        if recall.value is not None:
            assert recall.value == pytest.approx((predicted[of_class] == index).mean())


@given(seeds, st.sampled_from([1.0, 3.0, 10.0]))
@settings(max_examples=40)
def test_auc_from_bins_is_within_a_hundredth_of_sklearn(seed: int, scale: float) -> None:
    logits, labels = skewed(seed, 1000, scale)
    probabilities = np.exp(logits - np.logaddexp.reduce(logits, axis=1)[:, None])
    summary = summarize(ScoreCounts.from_logits(logits, labels), CODES)
    measured = []
    for index, code in enumerate(CODES):
        value = summary.auc[code].value
        if value is not None:
            measured.append(value)
            expected = roc_auc_score(labels == index, probabilities[:, index])
            assert value == pytest.approx(expected, abs=0.01)
    assert summary.macro_auc.value == pytest.approx(np.mean(measured))


@given(seeds)
@settings(max_examples=40)
def test_melanoma_sensitivity_equals_the_direct_computation(seed: int) -> None:
    logits, labels = skewed(seed, 400)
    scores = np.exp(logits)[:, MEL] / np.exp(logits).sum(axis=1)
    false_rate, true_rate, _ = roc_curve(labels == MEL, scores, drop_intermediate=False)
    # A bin holds a few cases: the threshold can only stop before or after all of them.
    lower = true_rate[false_rate <= 0.1 - 0.02].max()
    upper = true_rate[false_rate <= 0.1 + 1e-9].max()
    estimate = summarize(ScoreCounts.from_logits(logits, labels), CODES).melanoma_sensitivity
    assert estimate is not None and estimate.value is not None
    assert lower <= estimate.value <= upper
    assert estimate.n == (labels == MEL).sum()


def test_perfect_and_tied_scores() -> None:
    labels = np.repeat(np.arange(7), 10)
    perfect = summarize(ScoreCounts.from_probabilities(np.eye(7)[labels], labels), CODES)
    for estimate in (
        perfect.accuracy,
        perfect.balanced_accuracy,
        perfect.macro_f1,
        perfect.macro_auc,
        perfect.melanoma_sensitivity,
    ):
        assert estimate is not None and estimate.value == 1.0 == estimate.high
        assert estimate.low is not None and estimate.low < 0.99
    tied = summarize(ScoreCounts.from_logits(np.zeros((70, 7)), labels), CODES)
    assert tied.macro_auc.value == 0.5
    assert tied.melanoma_sensitivity is not None and tied.melanoma_sensitivity.value == 0.0


def test_too_few_cases_give_a_note_and_no_number() -> None:
    labels = np.array([5] * 20 + [4] * 3)
    logits = np.eye(7)[labels] * 3
    summary = summarize(ScoreCounts.from_logits(logits, labels), CODES)
    assert summary.recall["mel"].value is None
    assert summary.recall["mel"].note == "too few cases (3 of 5)"
    assert summary.auc["mel"].note == "too few cases (3 of 5)"
    assert summary.auc["nv"].note == "too few cases (3 of 5)"
    assert summary.macro_auc.note == "too few cases (3 of 5)"
    assert summary.melanoma_sensitivity is not None
    assert summary.melanoma_sensitivity.note == "too few cases (3 of 5)"
    assert summary.balanced_accuracy.note == "over 2 of 7 classes"
    nothing = summarize(ScoreCounts.zeros(7), CODES)
    assert nothing.accuracy.note == "too few cases (0 of 5)"
    assert nothing.balanced_accuracy.value is None
    json.dumps(nothing.to_json(), allow_nan=False)


def test_without_melanoma_among_the_classes() -> None:
    labels = np.repeat([0, 1], 10)
    summary = summarize(ScoreCounts.from_logits(np.eye(2)[labels], labels), ("nv", "bcc"))
    assert summary.melanoma_sensitivity is None
    assert summary.to_json()["melanoma_sensitivity"] is None


def test_class_appended_later_widens_older_counts_and_never_the_reverse() -> None:
    counts = ScoreCounts.from_logits(*skewed(0, 100))
    wider = summarize(counts, (*CODES, "scc"))
    assert wider.recall["scc"].n == 0
    assert wider.accuracy == summarize(counts, CODES).accuracy
    with pytest.raises(ValueError, match="shrink"):
        summarize(counts, CODES[:6])


def test_same_seed_same_intervals() -> None:
    counts = ScoreCounts.from_logits(*skewed(0, 200))
    assert summarize(counts, CODES, seed=1) == summarize(counts, CODES, seed=1)
    assert summarize(counts, CODES, seed=1) != summarize(counts, CODES, seed=2)


@given(seeds, st.integers(0, 300))
@settings(max_examples=30)
def test_every_interval_holds_its_value(seed: int, n: int) -> None:
    summary = summarize(ScoreCounts.from_logits(*skewed(seed, n)), CODES)
    estimates = [summary.accuracy, summary.balanced_accuracy, summary.macro_f1, summary.macro_auc]
    for estimate in [*estimates, *summary.recall.values(), *summary.auc.values()]:
        if estimate.value is None:
            assert estimate.low is None and estimate.high is None and estimate.note
        else:
            assert estimate.low is not None and estimate.high is not None
            assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    json.dumps(summary.to_json(), allow_nan=False)
