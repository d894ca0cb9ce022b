"""How far probabilities are from how often answers are right."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

BINS = 15
"""As in Guo et al., arXiv 1706.04599."""
_SMALLEST = 1e-12
"""A probability below this counts as this in the log-likelihood, so that one case is not all."""


@dataclass(frozen=True)
class ReliabilityBin:
    """Answers of similar confidence: from ``low`` to ``high``, ``n`` of them.

    ``confidence`` is their mean confidence and ``accuracy`` the share that is right, both None
    in an empty bin.
    """

    low: float
    high: float
    n: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Reliability:
    """How well a set of probabilities is calibrated.

    Parameters
    ----------
    n : int
    accuracy, confidence : float
        Share of right answers, and mean probability of the answers.
    ece, adaptive_ece : float
        Expected calibration error over `BINS` bins of equal width, and over as many with equally
        many answers, 0 to 1. With few cases both are too high: 15 bins of 10 cases each have an
        error of about 0.1 by chance alone.
    brier : float
        Mean squared distance of the probabilities from the truth, 0 to 2 (Brier 1950).
    nll : float
        Mean negative log-likelihood of the true classes, in nats.
    table : tuple of ReliabilityBin
        The bins of equal width.
    """

    n: int
    accuracy: float
    confidence: float
    ece: float
    adaptive_ece: float
    brier: float
    nll: float
    table: tuple[ReliabilityBin, ...]

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {**asdict(self), "table": [asdict(row) for row in self.table]}


def reliability(
    probabilities: ArrayLike, labels: ArrayLike, answers: ArrayLike | None = None
) -> Reliability:
    """Compare probabilities with the truth.

    Parameters
    ----------
    probabilities : float array, shape (n, C)
        Rows add up to 1; n at least 1.
    labels : int array, shape (n,)
        True class indices.
    answers : int array, shape (n,), optional
        What was answered; by default the most probable class. A case's confidence is the
        probability of its answer.
    """
    shares = np.asarray(probabilities, np.float64)
    truth = np.asarray(labels, np.int64)
    given = shares.argmax(axis=1) if answers is None else np.asarray(answers, np.int64)
    rows = np.arange(len(truth))
    confidence, correct = shares[rows, given], given == truth
    table = reliability_table(confidence, correct)
    wanted = np.eye(shares.shape[1])[truth]
    return Reliability(
        n=len(truth),
        accuracy=float(correct.mean()),
        confidence=float(confidence.mean()),
        ece=expected_error(table),
        adaptive_ece=expected_error(reliability_table(confidence, correct, adaptive=True)),
        brier=float(((shares - wanted) ** 2).sum(axis=1).mean()),
        nll=float(-np.log(np.maximum(shares[rows, truth], _SMALLEST)).mean()),
        table=table,
    )


def reliability_table(
    confidence: ArrayLike, correct: ArrayLike, bins: int = BINS, *, adaptive: bool = False
) -> tuple[ReliabilityBin, ...]:
    """Answers in ``bins`` bins of their confidence.

    Parameters
    ----------
    confidence : float array, shape (n,)
        0 to 1.
    correct : bool array, shape (n,)
    adaptive : bool
        Bins of equally many answers (Nguyen & O'Connor, arXiv 1508.05154) in place of equally
        wide ones; at most n of them.
    """
    found, right = np.asarray(confidence, np.float64), np.asarray(correct, np.bool_)
    if adaptive:
        order = np.argsort(found, kind="stable")
        parts = [part for part in np.array_split(order, bins) if len(part)]
        limits = [(float(found[part[0]]), float(found[part[-1]])) for part in parts]
    else:
        # Bins are open below and closed above, as in Guo et al.; 0 belongs to the first.
        place = np.clip(np.ceil(found * bins).astype(np.int64) - 1, 0, bins - 1)
        parts = [np.flatnonzero(place == k) for k in range(bins)]
        limits = [(k / bins, (k + 1) / bins) for k in range(bins)]
    return tuple(
        ReliabilityBin(low, high, len(part), float(found[part].mean()), float(right[part].mean()))
        if len(part)
        else ReliabilityBin(low, high, 0, None, None)
        for part, (low, high) in zip(parts, limits, strict=True)
    )


def expected_error(table: tuple[ReliabilityBin, ...]) -> float:
    """Mean distance of confidence and accuracy over a table's answers, 0 to 1 (0 without any).

    The expected calibration error of Naeini et al. (AAAI 2015).
    """
    total = sum(row.n for row in table)
    return sum(
        row.n * abs(row.confidence - row.accuracy)
        for row in table
        if row.confidence is not None and row.accuracy is not None
    ) / max(total, 1)
