"""Whether a new program is worse than the one in service, told from held-back cases."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Hits = NDArray[np.bool_]


def balanced_accuracy(hits: Hits, codes: Sequence[str]) -> float | None:
    """Mean recall over the classes that have cases; None without cases.

    Parameters
    ----------
    hits : bool array, shape (n,)
        Whether each case was recognised.
    codes : sequence of str, length n
        Each case's true class.
    """
    if not len(codes):
        return None
    true = np.asarray(codes)
    return float(np.mean([hits[true == code].mean() for code in np.unique(true)]))


def loss_of_recall(new: Hits, old: Hits, codes: Sequence[str]) -> tuple[float, float]:
    """How much balanced accuracy ``new`` has less than ``old``, and by how much chance alone.

    The test of McNemar (Psychometrika 12, 1947), stratified by class: where neither program is
    better, each case that only one of them recognises is as likely to be either's. So with b
    cases of a class's n that only the old program recognises and c that only the new one does,
    the class's recall falls by (b - c) / n, with variance (b + c) / n^2. Balanced accuracy is
    the mean over the K classes present. A class of one or two cases moves it by much, and
    widens the chance by as much.

    Parameters
    ----------
    new, old : bool array, shape (n,)
        Whether each program recognised each of the same cases, n at least 1.
    codes : sequence of str, length n
        Each case's true class.

    Returns
    -------
    loss, standard_error : float
        Both in units of balanced accuracy; the loss is negative where ``new`` is better.
    """
    true = np.asarray(codes)
    losses, variances = [], []
    for code in np.unique(true):
        members = true == code
        difference = old[members].astype(int) - new[members].astype(int)
        losses.append(difference.mean())
        variances.append(np.abs(difference).sum() / len(difference) ** 2)
    return float(np.mean(losses)), float(np.sqrt(np.sum(variances)) / len(variances))
