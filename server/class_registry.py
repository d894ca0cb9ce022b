"""The run's class registry: one index for every class, whichever sites met it first."""

from collections.abc import Mapping

import numpy as np

from common.messages import DeployReply
from common.qana.weights import NamedWeights
from common.score_counts import ScoreCounts
from server.validation import MOST_CLASSES


def newly_met(
    classes: tuple[str, ...], replies: Mapping[str, DeployReply]
) -> list[tuple[str, str]]:
    """Codes that the registry lacks, in the order of their new indices, each with its site.

    Sites come in the order of their names, so that who answers first changes nothing; a run has
    at most `MOST_CLASSES`.
    """
    met: dict[str, str] = {}
    for site in sorted(replies):
        for code in replies[site].new_classes:
            if code not in classes and len(classes) + len(met) < MOST_CLASSES:
                met.setdefault(code, site)
    return list(met.items())


def registered_counts(
    reply: DeployReply, before: tuple[str, ...], classes: tuple[str, ...]
) -> dict[str, ScoreCounts]:
    """A reply's counts in the order of the run's registry, which several sites may have grown.

    Parameters
    ----------
    before, classes : tuple of str
        The registry that the site was sent, and the one that all sites' new classes made of it.
    """
    known = (*classes, *(code for code in reply.new_classes if code not in classes))
    order = [known.index(code) for code in (*before, *reply.new_classes)]
    placed = {}
    for head, value in reply.heads.items():
        counts = ScoreCounts.from_json(value)
        placed[str(head)] = counts.placed(order[: counts.n_classes], len(known))
    return placed


def grow_moments(memory: NamedWeights, n_classes: int) -> NamedWeights:
    """A strategy's memory with zeros for the head's new outputs."""
    grown = dict(memory)
    for name, array in memory.items():
        if name.endswith((":head/kernel", ":head/bias")):
            extra = n_classes - array.shape[-1]
            grown[name] = np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, extra)])
    return grown
