"""How accurate the answers are that are left when the least confident ones go to a person.

The risk-coverage curve of selective classification (El-Yaniv & Wiener, JMLR 11, 2010; Geifman &
El-Yaniv, arXiv 1705.08500), drawn over the share of cases that is referred.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.intervals import BOOTSTRAP_DRAWS, Estimate, from_draws, proportion, too_few
from common.score_counts import BINS, ScoreCounts

SHARES = tuple(k / 20 for k in range(11))
"""Shares of the cases that are referred: 0, 5, 10, ... 50 %."""
MIN_CASES = 5
"""Fewer answers that are left get a note instead of a number."""
_CHUNK = 50
"""Bootstrap draws at a time, so that memory stays small."""


@dataclass(frozen=True)
class ReferralCurve:
    """Accuracy of the answers that are left, over the share of cases that is referred.

    Parameters
    ----------
    shares : tuple of float
        Shares referred, 0 to 1.
    accuracy, balanced_accuracy : tuple of Estimate
        Of the cases that are left, one for each share; the balanced one over the classes that
        have cases left, which its note counts where some have none.
    accuracy_area, balanced_area : Estimate
        Mean height of the curve over the shares, by the trapezoidal rule.
    """

    shares: tuple[float, ...]
    accuracy: tuple[Estimate, ...]
    balanced_accuracy: tuple[Estimate, ...]
    accuracy_area: Estimate
    balanced_area: Estimate

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {
            "shares": list(self.shares),
            "accuracy": [estimate.to_json() for estimate in self.accuracy],
            "balanced_accuracy": [estimate.to_json() for estimate in self.balanced_accuracy],
            "accuracy_area": self.accuracy_area.to_json(),
            "balanced_area": self.balanced_area.to_json(),
        }


def referral_curve(
    confidence: ArrayLike,
    answers: ArrayLike,
    labels: ArrayLike,
    lesion_ids: Sequence[str],
    *,
    draws: int = BOOTSTRAP_DRAWS,
    seed: int = 0,
) -> ReferralCurve:
    """The curve of a set of answers, with 95 % intervals by a bootstrap over lesions.

    Of cases with equal confidence each is as likely to be referred as the others, and a share
    that ends within a case takes that part of it: the curve does not depend on the cases' order.

    Parameters
    ----------
    confidence : float array, shape (n,)
        The least confident are referred first.
    answers, labels : int array, shape (n,)
        Answered and true class indices.
    lesion_ids : sequence of str, length n
        Images of one lesion are drawn together.
    draws, seed : int
        Of the bootstrap.
    """
    found, truth = np.asarray(confidence, np.float64), np.asarray(labels, np.int64)
    n = len(truth)
    if n < MIN_CASES:
        none = too_few(n, MIN_CASES)
        return ReferralCurve(SHARES, (none,) * len(SHARES), (none,) * len(SHARES), none, none)
    order = np.argsort(-found, kind="stable")
    sorted_confidence, truth = found[order], truth[order]
    ends = np.append(np.flatnonzero(np.diff(sorted_confidence)), n - 1)
    correct = np.asarray(answers, np.int64)[order] == truth
    classes, class_of = np.unique(truth, return_inverse=True)
    _, lesion = np.unique(np.asarray(lesion_ids, dtype=np.str_)[order], return_inverse=True)
    n_lesions = int(lesion.max()) + 1

    one = np.ones((1, n))
    value = _curves(one, correct, class_of, ends)
    generator, parts = np.random.default_rng(seed), []
    for first in range(0, draws, _CHUNK):
        size = min(_CHUNK, draws - first)
        counts = generator.multinomial(n_lesions, np.full(n_lesions, 1 / n_lesions), size=size)
        parts.append(_curves(counts[:, lesion].astype(np.float64), correct, class_of, ends))
    drawn = np.concatenate(parts)
    accuracy, balanced = [], []
    for place, share in enumerate(SHARES):
        left = round((1 - share) * n)
        if left < MIN_CASES:
            accuracy.append(too_few(left, MIN_CASES))
            balanced.append(too_few(left, MIN_CASES))
            continue
        present = round(float(value[0, 2, place]))
        note = "" if present == len(classes) else f"over {present} of {len(classes)} classes"
        accuracy.append(from_draws(float(value[0, 0, place]), drawn[:, 0, place], left))
        balanced.append(from_draws(float(value[0, 1, place]), drawn[:, 1, place], left, note))
    areas = [from_draws(float(_area(value[0, kind])), _area(drawn[:, kind]), n) for kind in (0, 1)]
    return ReferralCurve(SHARES, tuple(accuracy), tuple(balanced), areas[0], areas[1])


def curve_of_counts(counts: ScoreCounts) -> tuple[Estimate, ...]:
    """Accuracy of what is left at each of `SHARES`, from counts alone, with Wilson's intervals.

    An answer with a probability above one half is the only class above one half. So the
    histograms tell, bin by bin, how many answers are that confident and how many of them are
    right. Of the others only the sum is known: between those and the whole the curve is taken to
    be a straight line in right answers over cases, and ``note`` says so.
    """
    middle = BINS // 2
    right = counts.positives.sum(axis=0)[middle:][::-1].astype(np.float64)
    wrong = counts.negatives.sum(axis=0)[middle:][::-1].astype(np.float64)
    hits = float(np.trace(counts.confusion))
    left, kept = np.cumsum(right + wrong), np.cumsum(right)
    # Two classes at exactly one half stand in the bin of even odds twice.
    sound = (left <= counts.n) & (kept <= hits)
    left = np.concatenate([[0.0], left[sound], [counts.n]])
    kept = np.concatenate([[0.0], kept[sound], [hits]])
    confident = float(left[-2])
    found = []
    for share in SHARES:
        wanted = round((1 - share) * counts.n)
        if wanted < MIN_CASES:
            found.append(too_few(wanted, MIN_CASES))
            continue
        note = "" if share == 0 or wanted <= confident else "interpolated"
        found.append(proportion(float(np.interp(wanted, left, kept)), wanted, note))
    return tuple(found)


def _curves(
    weights: NDArray[np.float64],
    correct: NDArray[np.bool_],
    class_of: NDArray[np.int64],
    ends: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Accuracy, balanced accuracy and number of classes left, (draws, 3, shares).

    Parameters
    ----------
    weights : float64 array, shape (draws, n)
        How often each case was drawn, the most confident first.
    ends : int64 array
        Last place of each group of equal confidence.
    """
    n_classes = int(class_of.max()) + 1
    total = weights.sum(axis=1)
    left = _cumulated(weights, ends)
    hits = _cumulated(weights * correct, ends)
    members = [class_of == k for k in range(n_classes)]
    of_class = [_cumulated(weights * m, ends) for m in members]
    hits_of_class = [_cumulated(weights * (m & correct), ends) for m in members]
    found = np.empty((len(weights), 3, len(SHARES)))
    for draw in range(len(weights)):
        wanted = total[draw] * (1 - np.array(SHARES))
        found[draw, 0] = np.interp(wanted, left[draw], hits[draw]) / wanted
        recalls = np.full((n_classes, len(SHARES)), np.nan)
        for k in range(n_classes):
            cases = np.interp(wanted, left[draw], of_class[k][draw])
            right = np.interp(wanted, left[draw], hits_of_class[k][draw])
            np.divide(right, cases, out=recalls[k], where=cases > 1e-9)
        found[draw, 1] = np.nanmean(recalls, axis=0)
        found[draw, 2] = np.isfinite(recalls).sum(axis=0)
    return found


def _cumulated(weights: NDArray[np.float64], ends: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sums up to the end of each group, from 0."""
    sums = np.cumsum(weights, axis=1)[:, ends]
    return np.concatenate([np.zeros((len(weights), 1)), sums], axis=1)


def _area(heights: NDArray[np.float64]) -> NDArray[np.float64]:
    found = np.asarray(np.trapezoid(heights, SHARES, axis=-1), np.float64)
    return np.asarray(found / (SHARES[-1] - SHARES[0]))
