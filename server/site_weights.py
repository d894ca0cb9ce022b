"""How much each site's update counts in the mean: by its cases, or by its part of every class.

Logit adjustment makes the loss weigh all classes alike, but a mean by cases is still mostly that of
the sites that have most of the frequent class, and what the few sites with a rare class learn of it
is averaged away. By classes a site counts as its part of each class's cases, the classes weighed
alike.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

PRIOR_CASES = 20.0
"""A site's validation lesions are few, so with them go so many of the pooled shares."""
FEWEST = 5
"""A class with fewer validation lesions at all sites together decides nothing."""
MOST = 2.0
"""A site counts at most this many times its share of the cases: counts are what a site says."""


def weights_by_class(
    cases: Mapping[str, int], counts: Mapping[str, Sequence[int]]
) -> dict[str, float]:
    """Each site's weight, above 0; they add up to 1.

    A site's training cases are split over the classes as its validation lesions are, these
    smoothed by `PRIOR_CASES` lesions of the pooled shares. Its weight is the mean over the classes
    of its part in the cases of all sites with counts, at most `MOST` times its share of the cases.
    A site without counts has its share of the cases.

    Parameters
    ----------
    cases : mapping of site to int
        Training cases, at least 1 each.
    counts : mapping of site to sequence of int
        Validation lesions of each class; sites may be missing, and later classes from a sequence.
    """
    sites = sorted(cases)
    n_classes = max((len(counts.get(site, ())) for site in sites), default=0)
    counted = np.zeros((len(sites), n_classes))
    for row, site in zip(counted, sites, strict=True):
        known = counts.get(site, ())
        row[: len(known)] = known
    shares = np.array([cases[site] for site in sites], np.float64)
    shares /= shares.sum()
    counted = counted[:, counted.sum(axis=0) >= FEWEST]
    told = counted.sum(axis=1) > 0
    weights = shares.copy()
    if told.any():
        weights[told] = shares[told].sum() * _parts(shares[told], counted[told])
    return dict(zip(sites, _limited(weights, shares).tolist(), strict=True))


def _parts(shares: NDArray[np.float64], counted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the classes of each site's part in them; they add up to 1."""
    smoothed = counted + PRIOR_CASES * counted.sum(axis=0) / counted.sum()
    split = shares[:, None] * smoothed / smoothed.sum(axis=1, keepdims=True)
    return np.asarray((split / split.sum(axis=0)).mean(axis=1))


def _limited(weights: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights of at most `MOST` shares each; what is over goes to the others in proportion."""
    limit = MOST * shares
    at_limit = np.zeros(len(weights), bool)
    while (over := (weights > limit) & ~at_limit).any():
        at_limit |= over
        weights = np.where(at_limit, limit, weights)
        rest = weights[~at_limit]
        weights[~at_limit] = rest * (1 - limit[at_limit].sum()) / rest.sum()
    return weights
