"""Classes that came later than the program: their neurons, and what they may take from the others.

The spikes of a program tell the classes apart that it was trained on, and one that came later only
by chance. With a threshold that favours no class, a new class of few cases would take many cases of
all others. So its threshold is the lowest with which it wins at most a share of the site's own
exemplars of the program's classes, `MOST_TAKEN`, each class counting the same; judged on
exemplars that neither its neuron nor theirs were made from, since they answer to their own
exemplars better than to new cases. The same is asked of neurons that come from other sites, which
makes them harmless whatever they are. docs/on-chip-learning.md has what both costs and gives.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.neurons import Neurons
from edge_client.prototypes import (
    class_balanced,
    discriminative_prototypes,
    ridge_regression,
    strongest,
)

Spikes = NDArray[np.uint8]
Labels = NDArray[np.int64]
Mask = NDArray[np.bool_]

MOST_TAKEN = 0.03
"""Share of the exemplars of the program's classes that a later class may win."""

LATE_RIDGE = 1.0 / 16.0
"""`prototypes.RIDGE` for a later class, which has few cases and spikes not trained for it."""

FOLDS = 5


@dataclass(frozen=True)
class KnownClasses:
    """A site's exemplars of the program's classes, and how well their neurons answer to them.

    Parameters
    ----------
    neurons : Neurons
        Prototypes of the program's classes.
    spikes : uint8 array, shape (n, units)
    labels : int64 array, shape (n,)
    best : int64 array, shape (n,)
        The highest answer to each exemplar of prototypes that were made without it.
    """

    neurons: Neurons
    spikes: Spikes
    labels: Labels
    best: NDArray[np.int64]

    @classmethod
    def of(cls, spikes: Spikes, labels: Labels, n_known: int, num_weights: int) -> "KnownClasses":
        """From exemplars of the classes [0, n_known), at least one."""

        def best(kept: Mask, left_out: Mask) -> NDArray[np.int64]:
            fitted = discriminative_prototypes(spikes[kept], labels[kept], n_known, num_weights)
            present = fitted.chosen([int(k) for k in np.unique(labels[kept])])
            return np.asarray(present.answers(spikes[left_out]).max(axis=1))

        neurons = discriminative_prototypes(spikes, labels, n_known, num_weights)
        return cls(neurons, spikes, labels, _left_out(best, spikes, labels))

    def limit(self, late: Neurons, answers: NDArray[np.int64] | None = None) -> Neurons:
        """Neurons of one later class with the lowest thresholds that take few exemplars.

        Together they win at most `MOST_TAKEN` of them. The thresholds that they come with do not
        matter: those were for another site's layer.

        Parameters
        ----------
        answers : int64 array, shape (n, k), optional
            Of ``late`` to the exemplars, where it was itself made from these: of neurons
            made without each.
        """
        answers = late.answers(self.spikes) if answers is None else answers
        lead = answers - self.best[:, None]
        weight = class_balanced(self.labels)
        change = np.zeros(len(late), np.int32)
        for index in range(len(late)):
            order = np.argsort(-lead[:, index], kind="stable")
            taken = np.cumsum(weight[order]) > MOST_TAKEN / len(late) + 1e-9
            # The first exemplar that may no longer be won, and with it all that follow. Of equal
            # answers the first class's counts, and the program's classes come first.
            change[index] = lead[order[int(np.argmax(taken))], index]
        return late.raised(change)

    def taught(self, spikes: Spikes, num_weights: int) -> Neurons:
        """The neuron of a later class.

        Parameters
        ----------
        spikes : uint8 array, shape (m, units)
            Of its exemplars, m at least 1.
        """
        new = int(self.labels.max()) + 1

        def fitted(kept: Mask) -> Neurons:
            both = np.concatenate([self.spikes[kept], spikes])
            labels = np.append(self.labels[kept], np.full(len(spikes), new))
            scores = ridge_regression(both, labels, new + 1, LATE_RIDGE)[:, [new]]
            return Neurons(strongest(scores, num_weights), np.zeros(1, np.int32))

        def answers(kept: Mask, left_out: Mask) -> NDArray[np.int64]:
            return fitted(kept).answers(self.spikes[left_out])[:, 0]

        neuron = fitted(np.ones(len(self.labels), np.bool_))
        return self.limit(neuron, _left_out(answers, self.spikes, self.labels)[:, None])


def _left_out(
    answers: Callable[[Mask, Mask], NDArray[np.int64]], spikes: Spikes, labels: Labels
) -> NDArray[np.int64]:
    """``answers(kept, left_out)`` of each fold in turn, int64 (n,)."""
    folds = _folds(spikes, labels)
    found = np.zeros(len(labels), np.int64)
    for fold in np.unique(folds):
        out = folds == fold
        # Where there is one fold only, nothing can be left out.
        found[out] = answers(out if out.all() else ~out, out)
    return found


def _folds(spikes: Spikes, labels: Labels) -> Labels:
    """A fold for each exemplar, by its rank within its class; whatever order they come in."""
    order = np.lexsort((*np.packbits(spikes, axis=1).T, labels))
    first = np.searchsorted(labels[order], labels[order])
    folds = np.empty(len(labels), np.int64)
    folds[order] = (np.arange(len(labels)) - first) % FOLDS
    return folds
