"""Point estimates with 95 % intervals, for few cases as well as for many."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm

LEVEL = 0.95
BOOTSTRAP_DRAWS = 1000
_Z = float(norm.ppf(0.5 + LEVEL / 2))


@dataclass(frozen=True)
class Estimate:
    """One number with its 95 % interval.

    ``value``, ``low`` and ``high`` are None where there are too few cases to give a number,
    and ``note`` says so; else ``note`` says what the number leaves out, or is empty.
    ``n`` is the number of cases the estimate rests on.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """The five fields as JSON values."""
        return asdict(self)


def too_few(n: int, min_cases: int) -> Estimate:
    """The estimate that says that ``n`` cases are fewer than ``min_cases``."""
    return Estimate(None, None, None, n, f"too few cases ({n} of {min_cases})")


def proportion(successes: float, n: int, note: str = "") -> Estimate:
    """A proportion with its Wilson score interval (Wilson, JASA 1927); ``n`` above zero."""
    value = successes / n
    centre = (value + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * np.sqrt(value * (1 - value) / n + _Z**2 / (4 * n**2))
    return _bounded(value, centre - half, centre + half, n, note)


def area_under_curve(auc: float, positives: int, negatives: int) -> Estimate:
    """An AUC with a score interval over the variance of Hanley & McNeil (Radiology 1982).

    The bounds are the areas whose own standard error just reaches the estimate, so that the
    interval keeps its width at an AUC of 1 (score inversion as in Newcombe, Stat. Med. 2006).
    """

    def excess(area: float) -> float:
        return abs(area - auc) - _Z * _hanley_mcneil_error(area, positives, negatives)

    def bound(outer: float, inner: float) -> float:
        if excess(outer) <= 0:
            return outer
        # With so many cases that the interval is narrower than the hair, it is the estimate.
        return brentq(excess, *sorted((outer, inner))) if excess(inner) < 0 else auc

    # A hair inside the estimate: at 0 and 1 themselves the standard error is 0.
    low, high = bound(0.0, auc * (1 - 1e-9)), bound(1.0, auc + (1 - auc) * 1e-9)
    return _bounded(auc, low, high, positives + negatives, "")


def _hanley_mcneil_error(auc: float, positives: int, negatives: int) -> float:
    q1 = auc / (2 - auc)
    q2 = 2 * auc**2 / (1 + auc)
    variance = (
        auc * (1 - auc) + (positives - 1) * (q1 - auc**2) + (negatives - 1) * (q2 - auc**2)
    ) / (positives * negatives)
    return float(np.sqrt(max(variance, 0.0)))


def mean_of(estimates: list[Estimate], n: int, note: str) -> Estimate:
    """Unweighted mean of estimates, their intervals combined as if they were independent.

    The method of variance estimates recovery: distances to the bounds add up in squares
    (Zou & Donner, Stat. Med. 2008). Every estimate must have a value.
    """
    table = np.array([[e.value, e.low, e.high] for e in estimates], dtype=np.float64)
    value = float(table[:, 0].mean())
    below = float(np.linalg.norm(table[:, 0] - table[:, 1])) / len(estimates)
    above = float(np.linalg.norm(table[:, 2] - table[:, 0])) / len(estimates)
    return _bounded(value, value - below, value + above, n, note)


def from_confusion(
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    confusion: NDArray[np.int64],
    seed: int,
    note: str,
) -> Estimate:
    """A statistic of a confusion matrix with a parametric bootstrap interval.

    The cases of each true class are drawn anew from its row, to which one pseudo-case spread
    over all columns is added: without it a class that was always recognised would have no
    uncertainty. The shift that this brings is taken out of the bounds again.

    Parameters
    ----------
    statistic : callable
        Maps matrices of shape (..., C, C) to values of shape (...) within 0 and 1.
    confusion : int64 array, shape (C, C)
        Rows are true classes; at least one case.
    seed : int
        Equal seeds give equal intervals.
    note : str
        Passed on.
    """
    n_classes = len(confusion)
    row_sums = confusion.sum(axis=1)
    rates = (confusion + 1 / n_classes) / (row_sums[:, None] + 1)
    generator = np.random.default_rng(seed)
    draws = generator.multinomial(row_sums, rates, size=(BOOTSTRAP_DRAWS, n_classes))
    low, high = np.quantile(statistic(draws.astype(np.float64)), [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    value = float(statistic(confusion.astype(np.float64)))
    shift = value - float(statistic(rates * row_sums[:, None]))
    return _bounded(value, low + shift, high + shift, int(row_sums.sum()), note)


def from_draws(value: float, draws: NDArray[np.float64], n: int, note: str = "") -> Estimate:
    """A value within 0 and 1 with the percentile interval of its bootstrap draws, shape (k,).

    Where every draw is the value and that is 0 or 1, the bootstrap knows of no uncertainty: the
    interval is then Wilson's of n cases.
    """
    if value in (0.0, 1.0) and (draws == value).all():
        return proportion(value * n, n, note)
    low, high = np.quantile(draws, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return _bounded(value, float(low), float(high), n, note)


def _bounded(value: float, low: float, high: float, n: int, note: str) -> Estimate:
    return Estimate(
        value, float(min(max(low, 0.0), value)), float(max(min(high, 1.0), value)), n, note
    )
