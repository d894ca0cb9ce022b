"""Answering by several views of an image: what the eight symmetries of a square have in common."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from common.data.augmentation import turn

SYMMETRIES = 8
"""Quarter turns, and the same after a flip; a lesion has no up or down."""

Scores = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def over_symmetries(scores: Scores) -> Scores:
    """The mean of a network's scores over an image's eight symmetries, as a function like it.

    Test-time augmentation (arXiv 1312.5402 did it with flips and crops). It takes eight times as
    long. Training draws the same symmetries (`common.data.augmentation.augment`), so the network
    knows all of them.

    Parameters
    ----------
    scores : function
        Of uint8 images (n, size, size, 3) to float32 scores (n, classes).
    """

    def mean_scores(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        views = (turn(images, np.full(len(images), s, np.int64)) for s in range(SYMMETRIES))
        total = np.sum([scores(view) for view in views], axis=0, dtype=np.float64)
        return np.asarray(total / SYMMETRIES, np.float32)

    return mean_scores
