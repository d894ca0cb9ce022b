"""Making up for rare classes by correcting the loss's prior; `common.data.smote` adds cases."""

import numpy as np
from numpy.typing import NDArray

ABSENT_CLASS = -30.0
"""Log prior of a class that a site does not have: exp(-30) is nothing beside any other class."""


def pooled_class_shares(counts: NDArray[np.int64]) -> tuple[float, ...]:
    """Share of each class in the cases of several sites; none where a class was not counted.

    Parameters
    ----------
    counts : int64 array, shape (n_classes,)
        Cases of each class, of all sites together. Where one is 0 its share is not known: it
        may well have cases that are not counted here.
    """
    if not counts.all():
        return ()
    return tuple(float(share) for share in counts / counts.sum())


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
