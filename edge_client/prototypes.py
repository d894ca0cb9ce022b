"""Which connections the learning layer's neurons get: discriminative prototypes of the exemplars.

A neuron of Akida's learning layer answers with the number of its connections that spike, and
every neuron has the same number of them. Seen so, a class is a linear classifier with binary
weights. Its best real-valued weights have a closed form, ridge regression of the class on the
spikes (Hoerl and Kennard, Technometrics 12, 1970), each class counting the same whatever its
number of exemplars; the neuron gets the connections with the largest weights, and a threshold so
that no class is favoured. Akida's own rule moves connections towards the spikes of the cases that
it sees instead, and so takes up what all classes share. docs/on-chip-learning.md compares the two.

The result depends on the set of exemplars alone, not on their order: a case that is taken out
leaves no trace.
"""

import numpy as np
from numpy.typing import NDArray

from common.neurons import Neurons

RIDGE = 1.0 / 64.0
"""Penalty on the squared weights, as a share of the total variance of the spikes."""

SHARPNESS = 10.0
"""Slope of the softmax that balances the classes, over all connections of a neuron."""

_SCALING_STEPS = 100


def discriminative_prototypes(
    spikes: NDArray[np.uint8], labels: NDArray[np.int64], n_classes: int, num_weights: int
) -> Neurons:
    """One neuron for each class: the ``num_weights`` inputs that speak most for it.

    Parameters
    ----------
    spikes : uint8 array, shape (n, units)
        0 or 1, n at least 1.
    labels : int64 array, shape (n,)
        In [0, n_classes). A class without cases gets a neuron that means nothing.
    num_weights : int
        1 to units.

    Returns
    -------
    Neurons
        ``n_classes`` of them.
    """
    weight = class_balanced(labels)
    weights = strongest(ridge_regression(spikes, labels, n_classes, RIDGE), num_weights)
    answers = spikes.astype(np.int64) @ weights
    present = np.unique(labels)
    thresholds = np.zeros(n_classes)
    thresholds[present] = balancing_thresholds(answers[:, present], weight, SHARPNESS / num_weights)
    # Only differences of thresholds matter to one layer. That the best answer to the site's
    # own exemplars is 0 on the average makes those of several sites comparable.
    best = (answers - thresholds)[:, present].max(axis=1)
    thresholds[present] += (weight * best).sum()
    return Neurons(weights, np.round(thresholds).astype(np.int32))


def ridge_regression(
    spikes: NDArray[np.uint8], labels: NDArray[np.int64], n_classes: int, penalty: float
) -> NDArray[np.float64]:
    """Weights (units, n_classes) of the classes' indicators on the spikes, classes counting alike.

    ``penalty`` on the squared weights is a share of the total variance of the spikes.
    """
    weight = class_balanced(labels)
    centred = spikes - (weight[:, None] * spikes).sum(axis=0)
    targets = np.eye(n_classes)[labels]
    targets -= (weight[:, None] * targets).sum(axis=0)
    weighted = centred * weight[:, None]
    scatter = weighted.T @ centred
    # At least a little, for exemplars that are all alike.
    ridge = max(penalty * float(np.trace(scatter)), 1e-6)
    regularized = scatter + ridge * np.eye(spikes.shape[1])
    return np.asarray(np.linalg.solve(regularized, weighted.T @ targets))


def balancing_thresholds(
    answers: NDArray[np.int64], weight: NDArray[np.float64], sharpness: float
) -> NDArray[np.float64]:
    """Thresholds with which the mean softmax probability is the same for every class.

    The intercepts of a multinomial logistic regression with a fixed slope, by iterative
    scaling (Darroch and Ratcliff, Ann. Math. Statist. 43, 1972).

    Parameters
    ----------
    answers : int64 array, shape (n, classes)
        Spiking connections of each class's neuron.
    weight : float64 array, shape (n,)
        Of each case; each class's cases weigh 1 / classes together.
    sharpness : float
        Slope of the softmax, per connection.
    """
    n_classes = answers.shape[1]
    thresholds = np.zeros(n_classes)
    for _ in range(_SCALING_STEPS):
        scores = sharpness * (answers - thresholds)
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        thresholds += np.log((weight[:, None] * shares).sum(axis=0) * n_classes) / sharpness
    return thresholds


def class_balanced(labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """A weight for each case, so that every class weighs the same and all together weigh 1."""
    counts = np.bincount(labels)
    return np.asarray(1.0 / (counts[labels] * np.count_nonzero(counts)))


def strongest(scores: NDArray[np.float64], num_weights: int) -> NDArray[np.uint8]:
    """Ones at the ``num_weights`` largest entries of each column, of equal ones the first."""
    order = np.argsort(-np.round(scores, 9), axis=0, kind="stable")[:num_weights]
    chosen = np.zeros(scores.shape, np.uint8)
    np.put_along_axis(chosen, order, 1, axis=0)
    return chosen
