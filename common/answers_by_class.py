"""How a network answers the cases of each class on average: a confusion matrix of probabilities.

Sites tell of their training cases by it, the coordinator makes one of all of theirs
(`server.class_offsets`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.calibration import probabilities


@dataclass(frozen=True)
class AnswersByClass:
    """Additive sums of probabilities.

    Parameters
    ----------
    counts : int64 array, shape (n_classes,)
        Cases of each class.
    shares : float64 array, shape (n_classes, n_classes)
        In row c the sums of all classes' probabilities over the cases of class c; a row adds up to
        its count.
    """

    counts: NDArray[np.int64]
    shares: NDArray[np.float64]

    def __add__(self, other: "AnswersByClass") -> "AnswersByClass":
        return AnswersByClass(self.counts + other.counts, self.shares + other.shares)

    def of_large_classes(self, fewest: int) -> "AnswersByClass":
        """Without the cases of classes that have fewer than ``fewest``.

        Who knows the number of all cases could tell how many are hidden; so that these are no fewer
        either, the smallest of the other classes are left out too.
        """
        kept = self.counts >= fewest
        for smallest in np.argsort(self.counts, kind="stable"):
            if not 0 < self.counts[~kept].sum() < fewest:
                break
            kept[smallest] = False
        return AnswersByClass(
            np.where(kept, self.counts, 0), np.where(kept[:, None], self.shares, 0.0)
        )


def answers_by_class(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> AnswersByClass:
    """Sums over the cases of each class.

    Parameters
    ----------
    logits : float32 array, shape (n, n_classes)
    labels : int64 array, shape (n,)
    """
    n_classes = logits.shape[1]
    shares = np.zeros((n_classes, n_classes))
    np.add.at(shares, labels, probabilities(logits))
    return AnswersByClass(np.bincount(labels, minlength=n_classes).astype(np.int64), shares)
