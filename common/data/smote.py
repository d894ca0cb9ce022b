"""SMOTE in the whitened principal component space of a site's training images."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from common.data.cases import Cases
from common.data.whitening import Whitening, fit_whitening
from common.seeds import derive_seed

MOST_NEIGHBOURS = 5
"""SMOTE's k (Chawla et al. 2002, arXiv 1106.1813); smaller for classes with fewer cases."""

COMPONENTS = 4096
"""Of the whitened space, as in QANA (arXiv 2507.15958); fewer where there are fewer images."""

SHARE = 0.25
"""Of the largest class: the size up to which smaller ones are filled."""

MOST_FITTED = COMPONENTS + 1
"""Images that the space is fitted to: time grows with the square of their number and more."""

_AT_A_TIME = 32

Outcome = Literal["filled", "enough", "few-cases", "single-case", "absent"]
"""What became of a class. ``few-cases``: filled as far as `most_made` lets it, below the target;
``single-case``: there is nothing to interpolate with, left as it is."""


@dataclass(frozen=True)
class ClassOutcome:
    """A class's number of real cases, of cases made, and what became of it."""

    cases: int
    made: int
    outcome: Outcome


@dataclass(frozen=True)
class Oversampled:
    """Cases and what SMOTE added to them.

    Parameters
    ----------
    cases : Cases
        Those given, unchanged, then the new ones, whose case and lesion ids are ``smote-...``.
    outcomes : tuple of ClassOutcome
        By class index.
    parents : int64 array, shape (made, 2)
        Positions in ``cases`` of the two that each new one lies between.
    mixing : float32 array, shape (made,)
        How far from the first parent to the second, 0..1.
    target : int
        Size up to which classes were filled.
    components : int
        Of the whitened space; 0 where nothing had to be made, and it was not fitted.
    """

    cases: Cases
    outcomes: tuple[ClassOutcome, ...]
    parents: NDArray[np.int64]
    mixing: NDArray[np.float32]
    target: int
    components: int

    @property
    def made(self) -> Cases:
        """The new cases only."""
        n_real = len(self.cases) - len(self.parents)
        return self.cases.subset(np.arange(n_real, len(self.cases)))


def smote(
    cases: Cases, n_classes: int, seed: int, *, share: float = SHARE, components: int = COMPONENTS
) -> Oversampled:
    """Fill up the smaller classes with points between cases of a class and their neighbours.

    The images are put into a whitened principal component space (QANA, arXiv 2507.15958), new
    points are drawn there by imbalanced-learn's SMOTE (Chawla et al. 2002, arXiv 1106.1813), and
    these are turned into images again. With as many components as the images span, every two
    of them are equally far apart there (`fit_whitening`), so "neighbours" are any of the class;
    and as the way back is linear, a new image is the two images laid over each other.

    Parameters
    ----------
    cases : Cases
        Training cases of one site only: those made of held-back ones would leak them.
    n_classes : int
    seed : int
        Below 2**32.
    share : float
        Above 0, at most 1: see `target_size`.
    components : int
        At least 1; at most so many are kept.

    Returns
    -------
    Oversampled
        Equal arguments give equal bits on one machine: one thread is used, as rounding decides
        between neighbours that are equally far. At most as many cases are made as there are.
    """
    from threadpoolctl import threadpool_limits

    counts = cases.class_counts(n_classes)
    target = target_size(counts, share)
    outcomes = tuple(_outcome(int(n), target) for n in counts)
    filled = [label for label in range(n_classes) if outcomes[label].made]
    if not filled:
        none = np.zeros((0, 2), np.int64)
        return Oversampled(cases, outcomes, none, np.zeros(0, np.float32), target, 0)
    parts, parents, mixing = [cases], [], []
    with threadpool_limits(1):
        space, points_of = _space(cases, filled, components, seed)
        for label in filled:
            n_new = outcomes[label].made
            own = np.flatnonzero(cases.labels == label)
            mixed = between_neighbours(points_of[label], n_new, derive_seed(seed, "smote", label))
            ids = tuple(f"smote-{label}-{number}" for number in range(n_new))
            labels = np.full(n_new, label, np.int64)
            parts.append(Cases(space.images(mixed.points), labels, ids, ids))
            parents.append(own[mixed.parents])
            mixing.append(mixed.mixing)
    return Oversampled(
        Cases.concatenate(parts),
        outcomes,
        np.concatenate(parents),
        np.concatenate(mixing),
        target,
        space.components,
    )


def target_size(counts: NDArray[np.int64], share: float) -> int:
    """The size up to which classes are filled: ``share`` of the largest, rounded down.

    It is lower where more cases would have to be made than there are, so that a round of training
    takes at most twice as long whatever the classes are.

    Parameters
    ----------
    counts : int64 array, shape (n_classes,)
    share : float
        Above 0, at most 1.
    """
    target = math.floor(share * counts.max(initial=0))
    while sum(_made(int(n), target) for n in counts) > counts.sum():
        target -= 1
    return int(target)


def most_made(count: int) -> int:
    """The most new cases of a class of ``count``: one for each case and neighbour of it.

    More would be the same mixtures again. It is also the most in Chawla et al. 2002
    (arXiv 1106.1813), where a case is mixed with each of its k neighbours at most once.
    """
    return count * min(MOST_NEIGHBOURS, max(count - 1, 0))


def _made(count: int, target: int) -> int:
    return max(0, min(target - count, most_made(count)))


def _outcome(count: int, target: int) -> ClassOutcome:
    if count == 0:
        return ClassOutcome(0, 0, "absent")
    if count >= target:
        return ClassOutcome(count, 0, "enough")
    if count == 1:
        return ClassOutcome(1, 0, "single-case")
    made = _made(count, target)
    return ClassOutcome(count, made, "filled" if count + made == target else "few-cases")


def _space(
    cases: Cases, filled: list[int], components: int, seed: int
) -> tuple[Whitening, dict[int, NDArray[np.float32]]]:
    """The whitened space of the cases, and the points of each class in ``filled``.

    Of more than `MOST_FITTED` cases it is fitted to those of the classes to be filled first.
    """
    order = np.random.default_rng(seed).permutation(len(cases))
    order = order[np.argsort(~np.isin(cases.labels[order], filled), kind="stable")]
    fitted = np.sort(order[:MOST_FITTED])
    space, points = fit_whitening(cases.images[fitted], components, seed)
    points_of = {}
    for label in filled:
        own = np.flatnonzero(cases.labels == label)
        if np.isin(own, fitted).all():
            points_of[label] = points[np.searchsorted(fitted, own)]
        else:
            points_of[label] = space.points(cases.images[own])
    return space, points_of


@dataclass(frozen=True)
class Mixed:
    """New points between two of a class's own: ``a + mixing * (b - a)``.

    ``points`` is float32 (n_new, components); ``parents`` int64 (n_new, 2), positions of a and b;
    ``mixing`` float32 (n_new,), 0..1.
    """

    points: NDArray[np.float32]
    parents: NDArray[np.int64]
    mixing: NDArray[np.float32]


def between_neighbours(own: NDArray[np.float32], n_new: int, seed: int) -> Mixed:
    """Draw points between a class's points and their nearest neighbours (imbalanced-learn's SMOTE).

    Parameters
    ----------
    own : float32 array, shape (n, components)
        At least two; the min(`MOST_NEIGHBOURS`, n - 1) nearest of each are its neighbours.
    n_new : int
        At least 1.
    seed : int
        Below 2**32.
    """
    from imblearn.over_sampling import SMOTE

    sampler = SMOTE(
        sampling_strategy={0: len(own) + n_new},
        k_neighbors=min(MOST_NEIGHBOURS, len(own) - 1),
        random_state=seed,
    )
    # imbalanced-learn refuses data of one class: a point of another stands beside it, unused.
    beside = np.concatenate([own, np.zeros((1, own.shape[1]), np.float32)])
    labels = np.append(np.zeros(len(own), np.int64), 1)
    made = sampler.fit_resample(beside, labels)[0][len(beside) :]
    neighbours = sampler.nn_k_.kneighbors(own, return_distance=False)[:, 1:]
    return Mixed(made, *_segments(made, own, neighbours))


def _segments(
    made: NDArray[np.float32], own: NDArray[np.float32], neighbours: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Which segment from a point to its neighbour each of ``made`` is on, and where.

    The sampler does not say it. All distances come from the points' products with each other.
    """
    first = np.repeat(np.arange(len(own)), neighbours.shape[1])
    pairs = np.stack([first, neighbours.ravel()], axis=1)
    products = own @ own.T
    squares = np.diag(products)
    along = products[pairs[:, 0], pairs[:, 1]] - squares[pairs[:, 0]]
    lengths = np.maximum(squares[pairs[:, 1]] - 2 * along - squares[pairs[:, 0]], 1e-12)
    parents = np.empty((len(made), 2), np.int64)
    mixing = np.empty(len(made), np.float32)
    for start in range(0, len(made), _AT_A_TIME):
        part = made[start : start + _AT_A_TIME]
        to_own = part @ own.T
        a, b = to_own[:, pairs[:, 0]], to_own[:, pairs[:, 1]]
        # (m - a) . (b - a) / |b - a|^2, and the square of what m is beside the segment
        where = np.clip((b - a - along) / lengths, 0, 1)
        distance = squares[pairs[:, 0]] - 2 * a - 2 * where * (b - a - along) + where**2 * lengths
        best = distance.argmin(axis=1)
        parents[start : start + _AT_A_TIME] = pairs[best]
        mixing[start : start + _AT_A_TIME] = where[np.arange(len(part)), best]
    return parents, mixing
