"""The head that learns on a site's chip: a learning program whose classes have codes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from common.akida_runtime import LearningProgram, Program
from common.errors import UnknownLabel
from edge_client.exemplars import ExemplarStore
from edge_client.learning_parameters import LearningParameters, learning_parameters


class ChipHead:
    """A learning program and the class codes of its outputs, in order.

    Parameters
    ----------
    learner : LearningProgram
    classes : sequence of str
        One code per class of the learner.
    """

    def __init__(self, learner: LearningProgram, classes: Sequence[str]) -> None:
        self.learner = learner
        self.classes = tuple(classes)

    @classmethod
    def relearned(
        cls, program: Program, classes: Sequence[str], store: ExemplarStore, seed: int
    ) -> tuple["ChipHead", LearningParameters]:
        """A head that has learned the exemplars, in the store's order, and its settings.

        Codes of the store that are not in ``classes`` follow them, sorted. The same program,
        store, classes and seed give the same weights. Raises DataUnfit for an empty store.
        """
        codes = (*classes, *sorted(set(store.codes) - set(classes)))
        labels = store.labels(codes)
        spikes = program.spikes(store.images)
        chosen = learning_parameters(spikes, labels, len(codes))
        learner = LearningProgram.create(
            program,
            len(codes),
            chosen.neurons_per_class,
            chosen.num_weights,
            chosen.competition,
            seed,
        )
        learner.learn(store.images, labels, spikes)
        return cls(learner, codes), chosen

    def learn(self, image: NDArray[np.uint8], code: str) -> None:
        """Learn one case (height, width, 3); a code not known yet becomes a new class."""
        if code not in self.classes:
            self.learner.add_class()
            self.classes = (*self.classes, code)
        self.learner.learn(image[None], np.array([self.classes.index(code)], np.int64))

    def classify(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Potentials (n, len(classes)) of images (n, height, width, 3), 0 to num_weights."""
        return self.learner.classify(images)

    def hits(self, images: NDArray[np.uint8], codes: Sequence[str]) -> NDArray[np.bool_]:
        """Whether each image (n, height, width, 3) is recognised as its code, bool (n,)."""
        found = self.classify(images).argmax(axis=1)
        return np.array(
            [self.classes[k] == code for k, code in zip(found, codes, strict=True)], np.bool_
        )

    def potentials_for(
        self, images: NDArray[np.uint8], classes: Sequence[str]
    ) -> NDArray[np.float32]:
        """`classify` with its columns in the order of ``classes``.

        A class the head does not have is a column of -inf; raises UnknownLabel where the head has
        one that is not in ``classes``.
        """
        missing = set(self.classes) - set(classes)
        if missing:
            raise UnknownLabel(
                f"the chip's head knows {', '.join(sorted(missing))}, which the class map lacks; "
                "add the class to the map"
            )
        ordered = np.full((len(images), len(classes)), -np.inf, np.float32)
        ordered[:, [classes.index(code) for code in self.classes]] = self.classify(images)
        return ordered
