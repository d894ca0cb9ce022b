"""The head that learns on a site's chip: a learning program whose classes have codes."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from common.akida_runtime import LearningProgram, Program
from common.errors import UnknownLabel
from common.neurons import Neurons
from edge_client.case_journal import LabelledCase
from edge_client.exemplars import ExemplarStore
from edge_client.late_classes import KnownClasses
from edge_client.learning_parameters import LearningParameters, LearningRule, parameters_for
from edge_client.prototypes import discriminative_prototypes


class ChipHead:
    """A learning program, the class codes of its outputs in order, and what it learned from.

    With the rule "prototypes" its connections are a function of program, classes, store and
    neurons of other sites: learning a case offers it to the store. With "akida" every case moves
    the connections, in the order in which they come.

    Parameters
    ----------
    learner : LearningProgram
    classes : sequence of str
        One code per class of the learner.
    n_known : int
        The first so many classes are those that the program was trained on.
    store : ExemplarStore
    rule : "prototypes" or "akida"
    foreign : mapping of str to Neurons
        Those of other sites, for class codes that are in ``classes``.
    """

    def __init__(
        self,
        learner: LearningProgram,
        classes: Sequence[str],
        n_known: int,
        store: ExemplarStore,
        rule: LearningRule = "prototypes",
        foreign: Mapping[str, Neurons] | None = None,
    ) -> None:
        self.learner = learner
        self.classes = tuple(classes)
        self.n_known = n_known
        self.store = store
        self.rule = rule
        self.foreign = dict(foreign or {})
        self._spikes: dict[str, NDArray[np.uint8]] = {}

    @classmethod
    def relearned(
        cls,
        program: Program,
        classes: Sequence[str],
        store: ExemplarStore,
        seed: int,
        rule: LearningRule = "prototypes",
    ) -> tuple["ChipHead", LearningParameters]:
        """A head that has learned the exemplars, and its settings.

        Codes of the store that are not in ``classes`` follow them, sorted. The same arguments give
        the same weights. Raises DataUnfit for an empty store.
        """
        codes = (*classes, *sorted(set(store.codes) - set(classes)))
        labels = store.labels(codes)
        spikes = program.spikes(store.images)
        chosen = parameters_for(rule, spikes, labels, len(codes))
        learner = LearningProgram.create(
            program,
            len(codes),
            chosen.neurons_per_class,
            chosen.num_weights,
            chosen.competition,
            seed,
        )
        head = cls(learner, codes, program.output_shape[-1], store, rule)
        if rule == "prototypes":
            head._spikes = dict(zip(store.case_ids, spikes, strict=True))
            head._program()
        else:
            learner.learn(store.images, labels, spikes)
        return head, chosen

    @property
    def taught(self) -> frozenset[str]:
        """Codes that it was taught, here or by another site's neurons; it answers no others."""
        return frozenset({*self.store.codes, *self.foreign})

    def learn(self, cases: Sequence[LabelledCase]) -> None:
        """Learn cases in order; a code not known yet becomes a new class."""
        before = self.store
        for case in cases:
            if case.code not in self.classes:
                self.learner.add_class()
                self.classes = (*self.classes, case.code)
            if self.rule == "akida":
                label = np.array([self.classes.index(case.code)], np.int64)
                self.learner.learn(case.image[None], label)
        self.store = before.with_cases(cases)
        # A full class may have kept the exemplars that it had.
        if self.rule == "prototypes" and self.store.case_ids != before.case_ids:
            self._program()

    def adopt(self, foreign: Mapping[str, Neurons]) -> None:
        """Take over other sites' neurons, in place of all that were taken over before."""
        self.foreign = dict(foreign)
        for code in sorted(set(foreign) - set(self.classes)):
            self.learner.add_class()
            self.classes = (*self.classes, code)
        self._program()

    def own_neurons(self) -> dict[str, Neurons]:
        """The neuron that this site's exemplars give to each code."""
        return self._prototypes()[0]

    def classify(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Potentials (n, len(classes)) of images (n, height, width, 3).

        Between -num_weights and num_weights (`LearningProgram.classify`). A class that was never
        taught here is a column of -inf.
        """
        return self.classify_spikes(self.learner.spikes(images))

    def classify_spikes(self, spikes: NDArray[np.uint8]) -> NDArray[np.float32]:
        """`classify` of images whose spikes (n, spikes) are known already."""
        potentials = self.learner.classify_spikes(spikes)
        potentials[:, [code not in self.taught for code in self.classes]] = -np.inf
        return potentials

    def hits(self, images: NDArray[np.uint8], codes: Sequence[str]) -> NDArray[np.bool_]:
        """Whether each image (n, height, width, 3) is recognised as its code, bool (n,)."""
        found = self.classify(images).argmax(axis=1)
        return np.array(
            [self.classes[k] == code for k, code in zip(found, codes, strict=True)], np.bool_
        )

    def potentials_for(
        self, images: NDArray[np.uint8], classes: Sequence[str]
    ) -> NDArray[np.float32]:
        """`classify` with its columns in the order of ``classes``, see `in_order`."""
        return in_order(self.classify(images), self.classes, classes)

    def _prototypes(self) -> tuple[dict[str, Neurons], KnownClasses | None]:
        """One neuron per code of the store, and what later classes are measured by.

        That is None where there are no later classes, or nothing to measure them by.
        """
        spikes, labels = self._exemplar_spikes(), self.store.labels(self.classes)
        n_classes, num_weights = len(self.classes), self.learner.num_weights
        taught = [(code, self.classes.index(code)) for code in sorted(set(self.store.codes))]
        known = labels < self.n_known
        if not known.any() or (known.all() and not self.foreign):
            neurons = discriminative_prototypes(spikes, labels, n_classes, num_weights)
            return {code: neurons.chosen([index]) for code, index in taught}, None
        before = KnownClasses.of(spikes[known], labels[known], self.n_known, num_weights)
        return {
            code: before.neurons.chosen([index])
            if index < self.n_known
            else before.taught(spikes[labels == index], num_weights)
            for code, index in taught
        }, before

    def _exemplar_spikes(self) -> NDArray[np.uint8]:
        """Spikes of the store's exemplars, in its order; each image runs once."""
        unseen = [i for i, name in enumerate(self.store.case_ids) if name not in self._spikes]
        if unseen:
            found = self.learner.spikes(self.store.images[unseen])
            names = [self.store.case_ids[i] for i in unseen]
            self._spikes |= dict(zip(names, found, strict=True))
        self._spikes = {name: self._spikes[name] for name in self.store.case_ids}
        return np.stack(list(self._spikes.values()))

    def _program(self) -> None:
        """Write own prototypes and other sites' neurons into the layer's slots.

        Slots that are left over repeat the class's first neuron, which changes no maximum.
        """
        own, before = self._prototypes()
        slots = self.learner.neurons_per_class
        layer: list[Neurons] = []
        for code in self.classes:
            parts = [own[code]] if code in own else []
            if code in self.foreign:
                foreign = self.foreign[code]
                parts.append(before.limit(foreign) if before else foreign)
            # Of a class that nobody taught any neuron will do: its answers are masked.
            neurons = Neurons.joined(parts or [next(iter(own.values()))])
            layer.append(neurons.chosen([n if n < len(neurons) else 0 for n in range(slots)]))
        every = Neurons.joined(layer)
        self.learner.program_neurons(every.weights, every.thresholds)


def in_order(
    scores: NDArray[np.float32], codes: Sequence[str], classes: Sequence[str]
) -> NDArray[np.float32]:
    """Scores (n, len(codes)) with their columns in the order of ``classes``.

    A class that is not in ``codes`` is a column of -inf; raises UnknownLabel where a code is not in
    ``classes``.
    """
    missing = set(codes) - set(classes)
    if missing:
        raise UnknownLabel(
            f"this site knows {', '.join(sorted(missing))}, which the class map lacks; add the "
            "class to the map"
        )
    ordered = np.full((len(scores), len(classes)), -np.inf, np.float32)
    ordered[:, [classes.index(code) for code in codes]] = scores
    return ordered
