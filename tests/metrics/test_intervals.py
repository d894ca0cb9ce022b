"""Intervals: known values, and how often they hold the truth."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from common.intervals import Estimate, area_under_curve, mean_of, proportion
from common.metrics import ScoreCounts, summarize

CODES = ("bcc", "mel", "nv")


def holds(estimate: Estimate, truth: float) -> bool:
    assert estimate.low is not None and estimate.high is not None
    return estimate.low <= truth <= estimate.high


@pytest.mark.parametrize(("hits", "n"), [(0, 7), (3, 7), (7, 7), (450, 600)])
def test_proportion_is_scipys_wilson_interval(hits: int, n: int) -> None:
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    estimate = proportion(hits, n)
    assert estimate.low == pytest.approx(expected.low, abs=1e-9)
    assert estimate.high == pytest.approx(expected.high, abs=1e-9)


def test_mean_of_equal_estimates_is_narrower_by_the_root_of_their_number() -> None:
    one = Estimate(0.5, 0.4, 0.7, 10)
    mean = mean_of([one] * 4, 40, "note")
    assert (mean.value, mean.n, mean.note) == (0.5, 40, "note")
    assert mean.low == pytest.approx(0.45)
    assert mean.high == pytest.approx(0.6)


@pytest.mark.parametrize(("positives", "negatives"), [(8, 200), (50, 50)])
@pytest.mark.parametrize("truth", [0.6, 0.9])
def test_auc_interval_holds_the_truth_about_19_times_in_20(
    truth: float, positives: int, negatives: int
) -> None:
    rng = np.random.default_rng(5)
    shift = np.sqrt(2) * norm.ppf(truth)
    held = 0
    for _ in range(400):
        high, low = rng.normal(shift, 1, positives), rng.normal(0, 1, negatives)
        auc = float((high[:, None] > low).mean())
        held += holds(area_under_curve(auc, positives, negatives), truth)
    assert held / 400 >= 0.91


@pytest.mark.parametrize("recall", [0.5, 0.95])
def test_bootstrap_intervals_hold_the_truth_about_19_times_in_20(recall: float) -> None:
    rng = np.random.default_rng(6)
    cases = np.array([6, 20, 80])
    rates = np.full((3, 3), (1 - recall) / 2)
    np.fill_diagonal(rates, recall)
    held = np.zeros(2)
    matrix = rates * cases[:, None]
    f1 = np.mean(2 * np.diag(matrix) / (matrix.sum(axis=0) + cases))
    widths = []
    for _ in range(300):
        confusion = rng.multinomial(cases, rates).astype(np.int64)
        counts = ScoreCounts.zeros(3)
        summary = summarize(ScoreCounts(confusion, counts.positives, counts.negatives), CODES)
        held += holds(summary.balanced_accuracy, recall), holds(summary.macro_f1, f1)
        assert summary.balanced_accuracy.low is not None
        assert summary.balanced_accuracy.high is not None
        widths.append(summary.balanced_accuracy.high - summary.balanced_accuracy.low)
    assert (held / 300 >= 0.92).all()
    # Not by being useless: the smallest class alone would be 0.7 wide.
    assert np.mean(widths) < 0.4
