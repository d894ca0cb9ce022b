"""The mean of the networks that a phase's last rounds ended with: less noisy than the last one.

Stochastic weight averaging (Izmailov et al., arXiv 1803.05407) over the rounds of a federated
run, as Caldarola et al. did it (arXiv 2203.11834): each round's global network differs from the
one before by the noise of its sites' steps, of which the mean has less. It costs the sites nothing.
"""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from common.qana.weights import NamedWeights


def rounds_averaged(share: float, rounds: int) -> int:
    """How many of a phase's last rounds are averaged: a share of them, at least one."""
    return max(1, math.floor(share * rounds + 0.5))


def with_next(
    mean: NamedWeights, count: int, weights: Mapping[str, NDArray[np.float32]]
) -> NamedWeights:
    """The mean of ``count`` networks and one more, float32 arrays by name; ``mean`` is not changed.

    With ``count`` 0 it is ``weights``, whatever ``mean`` has.
    """
    if not count:
        return dict(weights)
    return {
        name: (mean[name] + (array - mean[name]) / np.float32(count + 1)).astype(np.float32)
        for name, array in weights.items()
    }
