"""Metrics of a federated evaluation, from the sum of what the sites counted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.intervals import (
    Estimate,
    area_under_curve,
    from_confusion,
    mean_of,
    proportion,
    too_few,
)
from common.score_counts import BINS, MAX_LOG_ODDS, ScoreCounts

__all__ = [
    "BINS",
    "MAX_LOG_ODDS",
    "MIN_CASES",
    "Estimate",
    "MetricSummary",
    "ScoreCounts",
    "balanced_accuracy",
    "summarize",
]

MIN_CASES = 5
"""A metric that rests on fewer cases gets a note instead of a number."""

MELANOMA = "mel"
SPECIFICITY = 0.9
HIGH_SPECIFICITY = 0.95


@dataclass(frozen=True)
class MetricSummary:
    """Every metric of one set of counts; ``recall`` and ``auc`` are by class code.

    ``melanoma_sensitivity`` (at 90 % specificity) and ``melanoma_sensitivity_95`` (at 95 %) are
    None where melanoma is not among the classes.
    """

    n: int
    accuracy: Estimate
    balanced_accuracy: Estimate
    macro_f1: Estimate
    macro_auc: Estimate
    melanoma_sensitivity: Estimate | None
    melanoma_sensitivity_95: Estimate | None
    recall: dict[str, Estimate]
    auc: dict[str, Estimate]

    def to_json(self) -> dict[str, Any]:
        """The metrics as JSON values, each an object with value, low, high, n and note."""
        mel, mel_95 = self.melanoma_sensitivity, self.melanoma_sensitivity_95
        return {
            "n": self.n,
            "accuracy": self.accuracy.to_json(),
            "balanced_accuracy": self.balanced_accuracy.to_json(),
            "macro_f1": self.macro_f1.to_json(),
            "macro_auc": self.macro_auc.to_json(),
            "melanoma_sensitivity": mel.to_json() if mel else None,
            "melanoma_sensitivity_95": mel_95.to_json() if mel_95 else None,
            "recall": {code: estimate.to_json() for code, estimate in self.recall.items()},
            "auc": {code: estimate.to_json() for code, estimate in self.auc.items()},
        }


def balanced_accuracy(counts: ScoreCounts, min_cases: int = MIN_CASES) -> float | None:
    """Mean recall over the classes that have cases, without its interval; cheap enough for curves.

    None where there are fewer than ``min_cases`` cases.
    """
    if counts.n < min_cases:
        return None
    present = counts.confusion.sum(axis=1) > 0
    return float(_recalls(counts.confusion.astype(np.float64))[present].mean())


def summarize(
    counts: ScoreCounts, codes: Sequence[str], *, min_cases: int = MIN_CASES, seed: int = 0
) -> MetricSummary:
    """All metrics of ``counts`` with 95 % intervals (docs/metrics.md defines each).

    Parameters
    ----------
    counts : ScoreCounts
        Padded where ``codes`` has more classes.
    codes : sequence of str
        Class codes in index order.
    min_cases : int
        A metric that rests on fewer cases has no value and a note instead.
    seed : int
        Of the bootstrap.

    Raises
    ------
    ValueError
        ``counts`` has more classes than ``codes``.
    """
    counts = counts.padded(len(codes))
    confusion, n = counts.confusion, counts.n
    per_class = confusion.sum(axis=1)
    hits = np.diagonal(confusion)
    recall, auc = {}, {}
    for index, code in enumerate(codes):
        cases = int(per_class[index])
        enough = cases >= min_cases
        recall[code] = proportion(int(hits[index]), cases) if enough else too_few(cases, min_cases)
        auc[code] = _class_auc(counts, index, min_cases)
    if n < min_cases:
        accuracy = balanced = macro_f1 = too_few(n, min_cases)
    else:
        accuracy = proportion(int(hits.sum()), n)
        present = per_class > 0
        seen = present | (confusion.sum(axis=0) > 0)
        balanced = from_confusion(
            lambda m: _recalls(m)[..., present].mean(axis=-1), confusion, seed, _over(present)
        )
        macro_f1 = from_confusion(
            lambda m: _f1_scores(m)[..., seen].mean(axis=-1), confusion, seed, _over(seen)
        )
    measured = [code for code in codes if auc[code].value is not None]
    melanoma, melanoma_95 = (
        _sensitivity(counts, list(codes).index(MELANOMA), min_cases, specificity)
        if MELANOMA in codes
        else None
        for specificity in (SPECIFICITY, HIGH_SPECIFICITY)
    )
    return MetricSummary(
        n=n,
        accuracy=accuracy,
        balanced_accuracy=balanced,
        macro_f1=macro_f1,
        macro_auc=(
            mean_of([auc[code] for code in measured], n, _over(np.isin(np.array(codes), measured)))
            if measured
            else too_few(max(estimate.n for estimate in auc.values()), min_cases)
        ),
        melanoma_sensitivity=melanoma,
        melanoma_sensitivity_95=melanoma_95,
        recall=recall,
        auc=auc,
    )


def _recalls(confusion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Recall per class of matrices (..., C, C); 0 for a class without cases."""
    cases = confusion.sum(axis=-1)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return np.divide(hits, cases, out=np.zeros_like(cases), where=cases > 0)


def _f1_scores(confusion: NDArray[np.float64]) -> NDArray[np.float64]:
    """F1 score per class of matrices (..., C, C); 0 for a class neither present nor predicted."""
    total = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return np.divide(2 * hits, total, out=np.zeros_like(total), where=total > 0)


def _over(included: NDArray[np.bool_]) -> str:
    count, n_classes = int(included.sum()), len(included)
    return "" if count == n_classes else f"over {count} of {n_classes} classes"


def _class_auc(counts: ScoreCounts, index: int, min_cases: int) -> Estimate:
    """AUC of one class against the rest; cases in one bin count half, as ties do."""
    positives, negatives = counts.positives[index], counts.negatives[index]
    n_positive, n_negative = int(positives.sum()), int(negatives.sum())
    if min(n_positive, n_negative) < min_cases:
        return too_few(min(n_positive, n_negative), min_cases)
    below = np.cumsum(negatives) - negatives
    ranked = float((positives * (below + negatives / 2)).sum())
    return area_under_curve(ranked / (n_positive * n_negative), n_positive, n_negative)


def _sensitivity(counts: ScoreCounts, index: int, min_cases: int, specificity: float) -> Estimate:
    """Sensitivity at the lowest threshold between bins that reaches a specificity."""
    positives, negatives = counts.positives[index], counts.negatives[index]
    n_positive, n_negative = int(positives.sum()), int(negatives.sum())
    if min(n_positive, n_negative) < min_cases:
        return too_few(min(n_positive, n_negative), min_cases)
    # The margin keeps 0.9 x n from being missed by rounding where it is a whole number.
    reached = np.cumsum(negatives) >= specificity * n_negative - 1e-6
    first_positive_bin = int(np.argmax(reached)) + 1
    return proportion(int(positives[first_positive_bin:].sum()), n_positive)
