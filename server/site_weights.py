"""How much each site's update counts in the mean: by its cases, or by its part of every class.

Logit adjustment makes the loss weigh all classes alike, but a mean by cases is still mostly that of
the sites that have most of the frequent class, and what the few sites with a rare class learn of it
is averaged away. By classes a site counts as its part of each class's cases, the classes weighed
alike.
"""

from collections.abc import Mapping, Sequence

import numpy as np

PRIOR_CASES = 20.0
"""A site's validation lesions are few: with so many cases of the pooled shares beside them a single
lesion of a rare class does not decide what the site is worth."""


def weights_by_class(
    cases: Mapping[str, int], counts: Mapping[str, Sequence[int]]
) -> dict[str, float]:
    """Each site's weight, above 0; they add up to 1.

    A site's training cases are split over the classes as its validation lesions are, these
    smoothed by `PRIOR_CASES` cases of the pooled shares. Its weight is the mean over the classes of
    its part in all sites' cases of the class. Where nothing is counted, weights are by cases.

    Parameters
    ----------
    cases : mapping of site to int
        Training cases, at least 1 each.
    counts : mapping of site to sequence of int
        Validation lesions of each class; sites may be missing, and later classes from a sequence.
    """
    sites = sorted(cases)
    n_classes = max((len(counts[site]) for site in sites if site in counts), default=0)
    counted = np.zeros((len(sites), n_classes))
    for row, site in zip(counted, sites, strict=True):
        known = counts.get(site, ())
        row[: len(known)] = known
    counted = counted[:, counted.sum(axis=0) > 0]  # nothing is known of the others
    trained = np.array([cases[site] for site in sites], np.float64)
    if counted.size:
        pooled = counted.sum(axis=0) / counted.sum()
        smoothed = counted + PRIOR_CASES * pooled
        split = trained[:, None] * smoothed / smoothed.sum(axis=1, keepdims=True)
        weights = (split / split.sum(axis=0)).mean(axis=1)
    else:
        weights = trained / trained.sum()
    return dict(zip(sites, weights.tolist(), strict=True))
