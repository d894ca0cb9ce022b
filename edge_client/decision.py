"""What a site answers: the program's own head and the chip's head together.

The program's head was trained on all sites' cases, the chip's knows the site's own and classes that
came later. For the classes that both know their log-probabilities are added, a product of experts
(Hinton, Neural Computation 14, 2002); a class that only the chip's head knows wins where that
head prefers it to all others.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from common.akida_runtime import Program
from common.akida_runtime.spike_head import SpikeHead
from common.test_time_views import over_symmetries
from edge_client.chip_head import ChipHead, in_order
from edge_client.prototypes import SHARPNESS

Scores = NDArray[np.float32]


def codes_of(registry: Sequence[str], head: ChipHead) -> tuple[str, ...]:
    """Codes that are scored: the program's own, then those that only the chip's head has."""
    return (*registry, *(code for code in head.classes if code not in registry))


def decided(
    program: Program,
    head: ChipHead,
    registry: Sequence[str],
    images: NDArray[np.uint8],
    all_symmetries: bool = False,
) -> tuple[Scores, tuple[str, ...]]:
    """Scores of both heads together, float32 (n, m), and the class codes of their columns.

    Images (n, height, width, 3) run once for both heads, with ``all_symmetries`` eight times for
    the mean over their symmetries. ``registry`` are the codes of the program's own classes.
    """
    codes, own_head = codes_of(registry, head), SpikeHead(program)

    def scores(views: NDArray[np.uint8]) -> Scores:
        spikes = program.spikes(views)
        chip = in_order(head.classify_spikes(spikes), head.classes, codes)
        return combined_scores(own_head.potentials(spikes), chip, head.learner.num_weights)

    return (over_symmetries(scores) if all_symmetries else scores)(images), codes


def combined_scores(program: Scores, chip: Scores, num_weights: int) -> Scores:
    """Scores of both heads together; the highest of a row is the answer.

    Parameters
    ----------
    program : float32 array, shape (n, k)
        Logits of the program's own head for the first k classes.
    chip : float32 array, shape (n, m)
        Potentials of the chip's head for all m >= k classes, -inf for one it was not taught.
    num_weights : int
        Connections of a neuron, which set the slope of the potentials.

    Returns
    -------
    float32 array, shape (n, m)
        -inf for a class that neither head knows.
    """
    known = program.shape[1]
    slope = SHARPNESS / num_weights
    expert = slope * chip
    taught = np.isfinite(chip[:, :known])
    # Where the chip was not taught a class, the program's head decides alone: the chip's
    # opinion counts as the mean of its others.
    mean = np.where(taught, expert[:, :known], 0.0).sum(axis=1) / np.maximum(taught.sum(axis=1), 1)
    scores = _log_softmax(program) + np.where(taught, expert[:, :known], mean[:, None])
    preferred = expert[:, :known].max(axis=1, initial=-np.inf)
    with np.errstate(invalid="ignore"):  # of two classes that nobody taught
        lead = expert[:, known:] - preferred[:, None]
    later = scores.max(axis=1, keepdims=True) + np.where(np.isnan(lead), -np.inf, lead)
    return np.asarray(np.concatenate([scores, later], axis=1), np.float32)


def _log_softmax(logits: Scores) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
