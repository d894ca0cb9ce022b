"""How large the learning layer is, from the statistics of the spikes it will learn from."""

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from common.errors import DataUnfit
from common.neurons import connections_of

LearningRule = Literal["prototypes", "akida"]
"""How the learning layer's connections come about: computed from the exemplar store, or moved by
Akida's own rule case by case."""

COMPETITION = 0.1
MAX_NEURONS_PER_CLASS = 50
SLOTS = 4
"""Neurons per class where they are computed: the site's own prototype and other sites' neurons."""


@dataclass(frozen=True)
class LearningParameters:
    """Settings of Akida's learning rule, see `learning_parameters`."""

    num_weights: int
    neurons_per_class: int
    competition: float

    def to_json(self) -> dict[str, float]:
        """As plain JSON values."""
        return asdict(self)


def learning_parameters(
    spikes: NDArray[np.uint8], labels: NDArray[np.int64], n_classes: int
) -> LearningParameters:
    """Choose the learning layer's settings after BrainChip's advice for edge learning.

    - ``num_weights`` is 1.2 x the median number of spikes of a case: with about as many
      connections as a case has spikes a neuron can cover one whole case; a few more let it
      cover what several similar cases share. At most half of the inputs: a neuron with more
      answers to everything. At least 1, also where a program makes no spikes at all: its head
      then recognises nothing, which is told by the held-back cases as of any other bad program.
    - ``neurons_per_class`` is the median number of cases of the classes present, at most 50:
      a neuron that has learned moves less and less, so that each further kind of case wants a
      neuron of its own, and neurons beyond one a case stay as they were drawn. The median
      keeps one large class from deciding for all, as Akida gives every class the same number.
    - ``competition`` is 0.1 (advised: at most 0.5): more of it keeps neurons of one class apart,
      but also keeps rare cases that resemble a learned one from being learned at all.

    Parameters
    ----------
    spikes : uint8 array, shape (n, units)
        0 or 1, n at least 1.
    labels : int64 array, shape (n,)
    n_classes : int

    Raises
    ------
    DataUnfit
        No cases.
    """
    if not len(labels):
        raise DataUnfit(
            "the learning layer has nothing to learn from: the site needs at least one labelled "
            "case"
        )
    median_spikes = float(np.median(spikes.sum(axis=1)))
    num_weights = min(round(1.2 * median_spikes), spikes.shape[1] // 2)
    counts = np.bincount(labels, minlength=n_classes)
    per_class = round(float(np.median(counts[counts > 0])))
    return LearningParameters(
        num_weights=max(1, num_weights),
        neurons_per_class=max(1, min(per_class, MAX_NEURONS_PER_CLASS)),
        competition=COMPETITION,
    )


def parameters_for(
    rule: LearningRule, spikes: NDArray[np.uint8], labels: NDArray[np.int64], n_classes: int
) -> LearningParameters:
    """`learning_parameters` for Akida's own rule; fixed ones where neurons are computed.

    Fixed ones are the same at every site, so that neurons can be exchanged. Raises DataUnfit
    without cases.
    """
    advised = learning_parameters(spikes, labels, n_classes)
    if rule == "akida":
        return advised
    return LearningParameters(connections_of(spikes.shape[1]), SLOTS, COMPETITION)
