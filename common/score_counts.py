"""What a site reports of its evaluation: additive counts instead of scores of single cases."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax, logsumexp

BINS = 256
MAX_LOG_ODDS = 100.0
"""Log-odds are clipped to this."""
MAX_CLASSES = 1024
_MAX_COUNT = 10**9
# Uniform in asinh(log-odds): 0.04 wide at even odds, 4 % of the log-odds towards the ends, so
# that neither an undecided nor a very confident network puts all its scores in a few bins.
_EDGES = np.sinh(np.linspace(-1.0, 1.0, BINS + 1) * np.arcsinh(MAX_LOG_ODDS))[1:-1]


@dataclass(frozen=True)
class ScoreCounts:
    """What a site tells of its evaluation; counts of disjoint sets of cases add up.

    Parameters
    ----------
    confusion : int64 array, shape (C, C)
        Rows are true classes, columns predicted ones.
    positives, negatives : int64 array, shape (C, BINS)
        For each class, the histogram of its score over the cases that are and that are not of
        it; the score is the log-odds of the class's probability, bins from low to high.
    """

    confusion: NDArray[np.int64]
    positives: NDArray[np.int64]
    negatives: NDArray[np.int64]

    @classmethod
    def zeros(cls, n_classes: int) -> "ScoreCounts":
        """Counts of no cases."""
        histogram = np.zeros((n_classes, BINS), dtype=np.int64)
        return cls(np.zeros((n_classes, n_classes), dtype=np.int64), histogram, histogram.copy())

    @classmethod
    def from_logits(cls, logits: ArrayLike, labels: ArrayLike) -> "ScoreCounts":
        """Count cases by the network's outputs before the softmax.

        Parameters
        ----------
        logits : float array, shape (n, C), C at least 2
            A class the network does not have is a column of -inf. Potentials of a chip's head
            are divided beforehand so that they differ by less than 100.
        labels : int array, shape (n,)
            True class indices.

        Raises
        ------
        ValueError
            Shapes do not fit, a label is outside the columns, or a logit is NaN or +inf.
        """
        scores = np.asarray(logits, dtype=np.float64)
        truth = np.asarray(labels, dtype=np.int64)
        if scores.ndim != 2 or scores.shape[1] < 2 or truth.shape != scores.shape[:1]:
            raise ValueError(f"logits {scores.shape} and labels {truth.shape} do not fit")
        n_classes = scores.shape[1]
        if len(truth) == 0:
            return cls.zeros(n_classes)
        if truth.min() < 0 or truth.max() >= n_classes:
            raise ValueError(f"a label is outside the {n_classes} classes")
        if np.isnan(scores).any() or not np.isfinite(scores.max(axis=1)).all():
            raise ValueError("a logit is not finite")
        bins = np.searchsorted(_EDGES, _log_odds(scores), side="right")
        is_class = truth[:, None] == np.arange(n_classes)
        return cls(
            _count_pairs(truth, scores.argmax(axis=1), (n_classes, n_classes)),
            _histograms(bins, is_class),
            _histograms(bins, ~is_class),
        )

    @classmethod
    def from_probabilities(cls, probabilities: ArrayLike, labels: ArrayLike) -> "ScoreCounts":
        """Count cases by class probabilities, shape (n, C); otherwise as `from_logits`."""
        values = np.asarray(probabilities, dtype=np.float64)
        if not (values >= 0).all():
            raise ValueError("a probability is negative or not a number")
        with np.errstate(divide="ignore"):
            return cls.from_logits(np.log(values), labels)

    @property
    def n_classes(self) -> int:
        """Number of classes C."""
        return len(self.confusion)

    @property
    def n(self) -> int:
        """Number of cases."""
        return int(self.confusion.sum())

    def padded(self, n_classes: int) -> "ScoreCounts":
        """These counts with classes appended that had no cases and the lowest score."""
        if n_classes < self.n_classes:
            raise ValueError(f"cannot shrink {self.n_classes} classes to {n_classes}")
        return self.placed(range(self.n_classes), n_classes)

    def placed(self, indices: Sequence[int], n_classes: int) -> "ScoreCounts":
        """These counts among ``n_classes`` classes, class k at ``indices[k]`` (each once).

        A class that none of these is at had no cases and the lowest score.
        """
        places = np.asarray(indices, dtype=np.int64)
        fits = len(places) == len(set(indices)) == self.n_classes
        if not fits or places.min() < 0 or places.max() >= n_classes:
            raise ValueError(f"{self.n_classes} classes cannot be placed at {list(indices)}")
        counts = ScoreCounts.zeros(n_classes)
        counts.negatives[:, 0] = self.n
        counts.confusion[np.ix_(places, places)] = self.confusion
        counts.positives[places] = self.positives
        counts.negatives[places] = self.negatives
        return counts

    def __add__(self, other: "ScoreCounts") -> "ScoreCounts":
        """Counts of both sets of cases; the one with fewer classes is padded."""
        n_classes = max(self.n_classes, other.n_classes)
        a, b = self.padded(n_classes), other.padded(n_classes)
        return ScoreCounts(
            a.confusion + b.confusion, a.positives + b.positives, a.negatives + b.negatives
        )

    def to_json(self) -> dict[str, Any]:
        """Plain lists of integers."""
        return {
            "confusion": self.confusion.tolist(),
            "positives": self.positives.tolist(),
            "negatives": self.negatives.tolist(),
        }

    @classmethod
    def from_json(cls, value: Any) -> "ScoreCounts":
        """Read what `to_json` wrote; raises ValueError for anything that cannot be counts."""
        if not isinstance(value, dict) or set(value) != {"confusion", "positives", "negatives"}:
            raise ValueError("counts need confusion, positives and negatives")
        confusion = _integers(value["confusion"])
        n_classes = len(confusion)
        if confusion.shape != (n_classes, n_classes):
            raise ValueError("the confusion matrix is not square")
        counts = cls(confusion, _integers(value["positives"]), _integers(value["negatives"]))
        counts._check()
        return counts

    def to_array(self) -> NDArray[np.int64]:
        """One flat int64 array for a network message: C, confusion, positives, negatives."""
        parts = (self.confusion, self.positives, self.negatives)
        return np.concatenate([[self.n_classes], *(p.ravel() for p in parts)]).astype(np.int64)

    @classmethod
    def from_array(cls, array: NDArray[Any]) -> "ScoreCounts":
        """Read what `to_array` wrote; raises ValueError for anything that cannot be counts."""
        if array.ndim != 1 or array.dtype != np.int64 or len(array) == 0:
            raise ValueError("counts are not a flat int64 array")
        n_classes = int(array[0])
        if not 2 <= n_classes <= MAX_CLASSES:
            raise ValueError("counts have an impossible number of classes")
        square, histogram = n_classes**2, n_classes * BINS
        if len(array) != 1 + square + 2 * histogram:
            raise ValueError("counts have the wrong length")
        confusion, positives, negatives = np.split(array[1:], [square, square + histogram])
        counts = cls(
            confusion.reshape(n_classes, n_classes).copy(),
            positives.reshape(n_classes, BINS).copy(),
            negatives.reshape(n_classes, BINS).copy(),
        )
        counts._check()
        return counts

    def _check(self) -> None:
        """Refuse counts that no set of cases can have."""
        n_classes = self.n_classes
        if not 2 <= n_classes <= MAX_CLASSES:
            raise ValueError("counts have an impossible number of classes")
        for histogram in (self.positives, self.negatives):
            if histogram.shape != (n_classes, BINS):
                raise ValueError(f"a histogram is not {n_classes} x {BINS}")
        for part in (self.confusion, self.positives, self.negatives):
            if part.min() < 0 or part.max() > _MAX_COUNT:
                raise ValueError(f"a count is outside 0 to {_MAX_COUNT}")
        per_class = self.confusion.sum(axis=1)
        if not np.array_equal(self.positives.sum(axis=1), per_class):
            raise ValueError("positives do not add up to the confusion matrix")
        if not np.array_equal(self.negatives.sum(axis=1), self.n - per_class):
            raise ValueError("negatives do not add up to the confusion matrix")


def _log_odds(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-odds of each class's softmax probability, clipped to +-MAX_LOG_ODDS."""
    log_probabilities = log_softmax(scores, axis=1)
    others = np.empty_like(log_probabilities)
    for index in range(scores.shape[1]):
        # log(1 - p) as the sum of the others: exact where p rounds to 1.
        others[:, index] = logsumexp(np.delete(log_probabilities, index, axis=1), axis=1)
    odds: NDArray[np.float64] = log_probabilities - others
    return np.clip(odds, -MAX_LOG_ODDS, MAX_LOG_ODDS)


def _count_pairs(
    rows: NDArray[np.int64], columns: NDArray[np.int64], shape: tuple[int, int]
) -> NDArray[np.int64]:
    flat = np.bincount(rows * shape[1] + columns, minlength=shape[0] * shape[1])
    return flat.reshape(shape).astype(np.int64)


def _histograms(bins: NDArray[np.int64], chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Histogram per column of the entries of ``bins`` where ``chosen``."""
    return _count_pairs(np.nonzero(chosen)[1], bins[chosen], (bins.shape[1], BINS))


def _integers(value: Any) -> NDArray[np.int64]:
    """A rectangular list of lists of non-negative integers as an array."""
    if not isinstance(value, list) or not 2 <= len(value) <= MAX_CLASSES:
        raise ValueError("counts have an impossible number of classes")
    if not all(isinstance(row, list) and len(row) == len(value[0]) for row in value):
        raise ValueError("rows of counts differ in length")
    if len(value[0]) > max(BINS, MAX_CLASSES):
        raise ValueError("a row of counts is too long")
    if not all(type(x) is int and 0 <= x <= _MAX_COUNT for row in value for x in row):
        raise ValueError(f"a count is not an integer from 0 to {_MAX_COUNT}")
    return np.array(value, dtype=np.int64).reshape(len(value), -1)


def widened(scores: NDArray[np.float32], n_classes: int) -> NDArray[np.float32]:
    """Scores (n, k) as (n, n_classes), with columns of -inf for classes that a head lacks."""
    missing = n_classes - scores.shape[1]
    return np.pad(scores, ((0, 0), (0, missing)), constant_values=-np.inf)
