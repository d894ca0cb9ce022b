"""What sites taught their learning layers, merged by union for all of them.

Binary neurons cannot be averaged: the mean of two with 96 connections each has other than 96, and
none of what either answered to (Motta and Nanni, arXiv 2603.13037, found the same and concatenate
neurons instead; docs/on-chip-learning.md shows both). So the neurons of all sites stand side by
side, up to a cap for each class, as the layer has so many slots.
"""

from collections.abc import Collection, Mapping

from common.errors import SiteRefused
from common.neurons import NeuronSet, SharedNeuron, connections_of, from_set

MOST_SENT = 4
"""Neurons of one class that a site may send."""

MOST_KEPT = 3
"""Neurons of one class that are handed on: a layer's four slots less the site's own."""


def check_neurons(
    shared: NeuronSet, program: str, spikes: int, num_weights: int, classes: Collection[str]
) -> None:
    """Refuse neurons that the version's learning layer cannot have.

    Parameters
    ----------
    program : str
        SHA-256 of the version's program.
    spikes, num_weights : int
        Inputs and connections of a neuron of that program.
    classes : collection of str
        Codes whose neurons may be sent.

    Raises
    ------
    SiteRefused
        Of another program, of another size, with another number of connections, with a
        threshold that no answer could pass or all would, of a class that does not exist, too many.
    """
    if shared.program != program:
        raise SiteRefused("neurons", "neurons that were learned on another program")
    if (shared.spikes, shared.num_weights) != (spikes, num_weights):
        raise SiteRefused("neurons", "neurons of another size than the learning layer's")
    if not set(shared.codes) <= set(classes):
        raise SiteRefused("neurons", "neurons of a class that the run does not exchange")
    for code in shared.codes:
        if sum(neuron.code == code for neuron in shared.neurons) > MOST_SENT:
            raise SiteRefused("neurons", f"more than {MOST_SENT} neurons of one class")
    if any(abs(neuron.threshold) > num_weights for neuron in shared.neurons):
        raise SiteRefused("neurons", "a threshold beyond all answers of a neuron")
    try:
        from_set(shared)
    except ValueError as error:
        raise SiteRefused("neurons", f"neurons that cannot be: {error}") from error


def collected(
    sent: Mapping[str, NeuronSet | None], program: str, spikes: int, classes: Collection[str]
) -> tuple[NeuronSet | None, dict[str, SiteRefused]]:
    """The union of what the sites sent, and who sent what no site can have learned.

    Parameters as for `check_neurons`; a site without neurons sent None.
    """
    usable: dict[str, NeuronSet] = {}
    refused: dict[str, SiteRefused] = {}
    for site, shared in sorted(sent.items()):
        if shared is None:
            continue
        try:
            check_neurons(shared, program, spikes, connections_of(spikes), classes)
            usable[site] = shared
        except SiteRefused as error:
            refused[site] = error
    return merged(usable), refused


def merged(sets: Mapping[str, NeuronSet], most: int = MOST_KEPT) -> NeuronSet | None:
    """The union of the sites' neurons, at most ``most`` of a class; None without any.

    Sites take turns, those with more exemplars of the class first (then by name), so that no
    site takes the places of all others; equal neurons count once. The cap bounds what one
    hostile site can put in; each receiving site then raises the threshold of what would take
    over its own cases.

    Parameters
    ----------
    sets : mapping of str to NeuronSet
        By site, all of one program.
    """
    kept: list[SharedNeuron] = []
    for code in sorted({code for shared in sets.values() for code in shared.codes}):
        kept += _of_class(code, sets, most)
    if not kept:
        return None
    one = next(iter(sets.values()))
    return one.model_copy(update={"neurons": tuple(kept)})


def _of_class(code: str, sets: Mapping[str, NeuronSet], most: int) -> list[SharedNeuron]:
    queues = {
        site: [neuron for neuron in shared.neurons if neuron.code == code]
        for site, shared in sets.items()
    }
    order = sorted(queues, key=lambda site: (-sum(n.cases for n in queues[site]), site))
    chosen: dict[str, SharedNeuron] = {}
    for turn in range(MOST_SENT):
        for site in order:
            if turn < len(queues[site]) and len(chosen) < most:
                chosen.setdefault(queues[site][turn].connections, queues[site][turn])
    return list(chosen.values())
