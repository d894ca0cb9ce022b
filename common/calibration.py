"""Probabilities that mean what they say: temperature scaling, with the class prior put back.

The networks are trained with logit adjustment (Menon et al., arXiv 2007.07314), and the chip's
head is balanced: their scores weigh all classes alike. Softmax of such scores is a probability
where all classes are equally frequent, which they are nowhere, and it is as sure as the network
happens to be. So scores are divided by a temperature (Guo et al., arXiv 1706.04599) and the log
frequencies of a site's own classes are added: softmax(scores / T + log prior). The prior is not
fitted but counted, so one number is all that is learned from the validation cases. Where the
scores hold the prior already (trained without the adjustment) they fit better without it, and it
is left out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

MIN_LESIONS = 20
"""Fewer validation lesions fit no temperature. Of 120 draws of 20 from three sources of HAM10000
none raised the negative log-likelihood of the test lesions (both heads, docs/metrics.md)."""
LOWEST, HIGHEST = 0.05, 20.0
"""Bounds of the temperature: far outside of what networks need, and finite."""
FOLDS = 5


@dataclass(frozen=True)
class Calibration:
    """How probabilities are made of scores.

    Parameters
    ----------
    temperature : float
        1 where none was fitted.
    log_prior : tuple of float
        One for each class; empty where the prior is left out.
    lesions : int
        That it was fitted on; 0 where it was not.
    note : str
        Why it was not fitted, or empty.
    """

    temperature: float = 1.0
    log_prior: tuple[float, ...] = ()
    lesions: int = 0
    note: str = ""

    @property
    def is_fitted(self) -> bool:
        """Whether there is more to it than softmax."""
        return self.lesions > 0

    def probabilities(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Class probabilities float64 (n, C) of scores (n, C); 0 for a score of -inf."""
        return probabilities(scores, self.temperature, self.log_prior or None)


def probabilities(
    scores: ArrayLike, temperature: float = 1.0, log_prior: ArrayLike | None = None
) -> NDArray[np.float64]:
    """softmax(scores / temperature + log_prior) of each row, float64 (n, C).

    A score of -inf gets 0; every row needs a finite one.
    """
    found = _adjusted(np.asarray(scores, np.float64), 1.0 / temperature, log_prior)
    return np.asarray(np.exp(found - logsumexp(found, axis=1, keepdims=True)))


def smoothed_log_prior(counts: ArrayLike) -> NDArray[np.float64]:
    """Log frequencies (C,) of classes with these counts, one case added to each (Laplace).

    So a class that a site has not seen is rare there, never impossible.
    """
    smoothed = np.asarray(counts, np.float64) + 1.0
    return np.asarray(np.log(smoothed / smoothed.sum()))


def fit_calibration(
    scores: ArrayLike,
    labels: ArrayLike,
    lesion_ids: Sequence[str],
    log_prior: ArrayLike | None = None,
    *,
    keep_prior: bool = False,
    min_lesions: int = MIN_LESIONS,
) -> Calibration:
    """The temperature with the lowest negative log-likelihood, and whether the prior helps it.

    Each case's target is its class with weight n / (n + 1) and the prior with the rest, as if one
    more case had been seen of which nothing is known (Platt 1999): otherwise scores that are
    always right would have a temperature of 0.

    Parameters
    ----------
    scores : float array, shape (n, C)
        Validation cases' scores; -inf for a class that is no answer.
    labels : int array, shape (n,)
        True class indices. A case whose own class has a score of -inf is left out.
    lesion_ids : sequence of str, length n
    log_prior : float array, shape (C,), optional
        Of the site's classes. It is used where the likelihood is higher with it.
    keep_prior : bool
        Use it in any case.
    min_lesions : int
        With fewer, or with cases of a single class, nothing is fitted and ``note`` says so.

    Raises
    ------
    ValueError
        Shapes do not fit, or a score is NaN or +inf.
    """
    values, truth = np.asarray(scores, np.float64), np.asarray(labels, np.int64)
    if values.ndim != 2 or truth.shape != values.shape[:1] or len(lesion_ids) != len(truth):
        raise ValueError(f"scores {values.shape} and labels {truth.shape} do not fit")
    if np.isnan(values).any() or np.isposinf(values).any():
        raise ValueError("a score is not finite")
    usable = np.flatnonzero(np.isfinite(values[np.arange(len(truth)), truth]))
    values, truth = values[usable], truth[usable]
    lesions = len({lesion_ids[i] for i in usable})
    if lesions < min_lesions:
        return Calibration(note=f"too few validation lesions ({lesions} of {min_lesions})")
    if len(np.unique(truth)) < 2:
        return Calibration(note="all validation cases are of one class")
    candidates: list[NDArray[np.float64] | None]
    candidates = [] if keep_prior and log_prior is not None else [None]
    if log_prior is not None:
        candidates.append(np.asarray(log_prior, np.float64))
    fits = [(*_temperature(values, truth, prior), prior) for prior in candidates]
    _, temperature, prior = min(fits, key=lambda fit: fit[0])
    return Calibration(temperature, () if prior is None else tuple(prior.tolist()), lesions)


def cross_fitted(
    scores: NDArray[Any],
    labels: NDArray[np.int64],
    lesion_ids: Sequence[str],
    fit: Callable[[NDArray[np.int64]], Calibration],
    folds: int = FOLDS,
    seed: int = 0,
) -> tuple[NDArray[np.float64], list[Calibration]]:
    """Probabilities (n, C) of cases by calibrations that were fitted on other lesions.

    Lesions are dealt to ``folds`` parts at random; each part's probabilities come from
    ``fit(indices)`` of the cases in the others. Also returns those calibrations, of which the
    first that was not fitted says why.
    """
    _, lesion = np.unique(np.asarray(lesion_ids, dtype=np.str_), return_inverse=True)
    n_lesions = int(lesion.max()) + 1 if len(lesion) else 0
    part = (np.random.default_rng(seed).permutation(n_lesions) % folds)[lesion]
    found = np.zeros(scores.shape, np.float64)
    used = []
    for fold in range(folds):
        calibration = fit(np.flatnonzero(part != fold))
        used.append(calibration)
        inside = part == fold
        if inside.any():
            found[inside] = calibration.probabilities(scores[inside])
    return found, used


def _temperature(
    scores: NDArray[np.float64], labels: NDArray[np.int64], log_prior: NDArray[np.float64] | None
) -> tuple[float, float]:
    """Lowest loss and the temperature that has it.

    The loss is convex in 1 / temperature, so it has one minimum between the bounds.
    """
    n, known = len(labels), np.isfinite(scores)
    prior = np.zeros(scores.shape[1]) if log_prior is None else log_prior
    shares = np.where(known, np.exp(prior - prior.max()), 0.0)
    shares /= shares.sum(axis=1, keepdims=True)
    targets = shares / (n + 1)
    targets[np.arange(n), labels] += n / (n + 1)
    scores = scores - scores.max(axis=1, keepdims=True)
    finite = np.where(known, scores, 0.0)
    pull = (targets * finite).sum(axis=1)
    constant = (targets * prior).sum(axis=1)

    def loss(log_temperature: float) -> float:
        sharpness = float(np.exp(-log_temperature))
        total = logsumexp(_adjusted(scores, sharpness, log_prior), axis=1)
        return float((total - sharpness * pull - constant).mean())

    best = minimize_scalar(
        loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded", options={"xatol": 1e-5}
    )
    return float(best.fun), float(np.exp(best.x))


def _adjusted(
    scores: NDArray[np.float64], sharpness: float, log_prior: ArrayLike | None
) -> NDArray[np.float64]:
    shifted = (scores - scores.max(axis=1, keepdims=True)) * sharpness
    prior = 0.0 if log_prior is None else np.asarray(log_prior, np.float64)
    return np.asarray(shifted + prior)
