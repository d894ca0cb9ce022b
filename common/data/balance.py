"""Two ways to make up for rare classes: correcting the loss's prior, and SMOTE."""

import numpy as np
from numpy.typing import NDArray

from common.data.cases import Cases

ABSENT_CLASS = -30.0
"""Log prior of a class that a site does not have: exp(-30) is nothing beside any other class."""

MOST_NEIGHBOURS = 5
"""SMOTE's k (Chawla et al. 2002); smaller for classes with fewer cases."""


def class_log_priors(
    labels: NDArray[np.int64], n_classes: int, *, tau: float = 1.0
) -> NDArray[np.float32]:
    """Values to add to the logits in the training loss (logit adjustment).

    A network trained with softmax(logits + tau * log prior) learns logits free of the site's
    own class frequencies: Menon et al. 2021, arXiv 2007.07314. A class that is
    absent drops out of the local softmax, so that a site never pushes down what it never sees.

    Parameters
    ----------
    labels : int64 array, shape (n,)
        Class indices of the site's training cases.
    n_classes : int
    tau : float
        Strength; 0 leaves the loss as it is (absent classes drop out all the same).

    Returns
    -------
    float32 array, shape (n_classes,)
        tau * log(share), `ABSENT_CLASS` for absent classes.
    """
    counts = np.bincount(labels, minlength=n_classes)
    adjustment = np.full(n_classes, ABSENT_CLASS, np.float32)
    present = counts > 0
    adjustment[present] = tau * np.log(counts[present] / max(len(labels), 1))
    return adjustment


def smote(cases: Cases, n_classes: int, seed: int) -> tuple[Cases, list[str]]:
    """Oversample the rarer classes with SMOTE on pixels (Chawla et al. 2002, arXiv 1106.1813).

    Every class with fewer cases than the median of the classes present is filled up to that
    median by points between a case and one of its nearest neighbours of the same class. The
    result is therefore at most ``n_classes`` medians larger than ``cases``.

    Parameters
    ----------
    cases : Cases
        Training cases only: synthetic ones made of held-back cases would leak them.
    n_classes : int
    seed : int

    Returns
    -------
    Cases
        ``cases`` followed by the synthetic ones, whose case and lesion ids are ``smote-...``.
    list of str
        In words: each class (by its index) that could not be oversampled.
    """
    from imblearn.over_sampling import SMOTE

    counts = cases.class_counts(n_classes)
    present = counts[counts > 0]
    target = int(np.median(present)) if len(present) else 0
    rare = [c for c in range(n_classes) if 0 < counts[c] < target]
    notes = [
        f"class {c} has a single training case, SMOTE needs two: not oversampled"
        for c in rare
        if counts[c] == 1
    ]
    parts = [cases]
    for label in (c for c in rare if counts[c] > 1):
        own = np.flatnonzero(cases.labels == label)
        # imbalanced-learn refuses data of one class: a case of another stands beside it.
        beside = np.flatnonzero(cases.labels != label)[:1]
        pixels = cases.images[np.concatenate([own, beside])]
        sampler = SMOTE(
            sampling_strategy={label: target},
            k_neighbors=min(MOST_NEIGHBOURS, len(own) - 1),
            random_state=seed,
        )
        flat = pixels.reshape(len(pixels), -1).astype(np.float32)
        made, _ = sampler.fit_resample(flat, cases.labels[np.concatenate([own, beside])])
        new = np.clip(np.rint(made[len(pixels) :]), 0, 255).astype(np.uint8)
        ids = tuple(f"smote-{label}-{number}" for number in range(len(new)))
        images = new.reshape(-1, *cases.images.shape[1:])
        parts.append(Cases(images, np.full(len(new), label, np.int64), ids, ids))
    return Cases.concatenate(parts), notes
