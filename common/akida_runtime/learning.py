"""A program whose last layer goes on learning, case by case."""

from typing import Any

import akida
import numpy as np
from numpy.typing import NDArray

from common.akida_runtime.devices import available_device
from common.akida_runtime.models import batches, flat, free, free_with, temporary
from common.akida_runtime.program import Program
from common.errors import BundleDamaged, DeviceError, SettingsError

_LEARNING_LAYER = "learning"
_LEARNED = ("act_step", "threshold", "threshold_learning", "thswap", "weights")
"""Everything that a learning layer knows; plasticity is in ``thswap``."""


class LearningProgram:
    """A program whose head was replaced by a layer that learns on the chip, case by case.

    Akida's learning rule ("Only layers receiving binary inputs can be trained") looks at nothing
    but the spikes, so the software backend keeps the learning layer as a model of its own and
    computes an image's spikes once. That is exactly equal to learning through the whole
    program (tested), and takes 40 to 160 microseconds a case beside the body's forward pass.
    With a real device the whole program is mapped and learns there.

    Akida draws a new neuron's weights at random and offers no seed: they are overwritten with
    ones drawn from ``(seed, neuron)``. Which connections a neuron moves depends on a hidden
    generator that a model starts with and a file does not hold: every call of `learn` begins
    with a copy of the model, which starts it anew. So what one call learns depends on the
    stored state and its cases alone, and a program that was saved and loaded in between goes on
    as one that was not.

    Parameters
    ----------
    program : Program
        Its head is dropped.
    tail : akida.Model
        Input layer and compiled learning layer.
    seed : int
        At least 0; of the weights with which neurons begin.
    """

    def __init__(self, program: Program, tail: Any, seed: int) -> None:
        self._program = program
        self._tail = tail
        self._seed = seed
        self._tails = [tail]
        free_with(self, self._tails)

    @classmethod
    def create(
        cls,
        program: Program,
        n_classes: int,
        neurons_per_class: int,
        num_weights: int,
        competition: float,
        seed: int,
    ) -> "LearningProgram":
        """A program that has learned nothing yet.

        Each neuron has ``num_weights`` connections among the spikes; ``competition`` (0 to 1)
        is how much a neuron must differ from those that answer already.
        Raises SettingsError where the numbers do not fit the program.
        """
        if not 1 <= num_weights <= program.n_spikes or min(n_classes, neurons_per_class) < 1:
            raise SettingsError(
                f"{n_classes} classes x {neurons_per_class} neurons with {num_weights} weights do "
                f"not fit a program with {program.n_spikes} spikes"
            )
        tail = _learning_model(
            [_spike_input(program)], n_classes, neurons_per_class, num_weights, competition
        )
        learner = cls(program, tail, seed)
        learner._draw_weights(0)
        return learner

    @classmethod
    def from_bytes(cls, fbz: bytes, seed: int) -> "LearningProgram":
        """From what `to_bytes` returned; goes on learning where it stopped.

        ``seed`` is the one it was created with. Raises BundleDamaged as `Program.from_bytes`,
        and where the program has no learning layer.
        """
        program = Program.from_bytes(fbz)
        learning = program.model.learning
        if learning is None:
            raise BundleDamaged("the Akida program has no learning layer; learn its cases anew")
        n_classes = int(learning.num_classes)
        tail = _learning_model(
            [_spike_input(program)],
            n_classes,
            int(np.prod(program.output_shape)) // n_classes,
            int(learning.num_weights),
            float(learning.learning_competition),
        )
        _copy_learned(program.model, tail)
        return cls(program, tail, seed)

    def to_bytes(self) -> bytes:
        """`Program.to_bytes` of `complete`."""
        return self.complete().to_bytes()

    def complete(self) -> Program:
        """What is deployed and mapped: the body with the learning layer as it is now."""
        return Program(self._whole())

    @property
    def n_classes(self) -> int:
        """Number of classes the layer has now."""
        return int(self._tail.learning.num_classes)

    @property
    def neurons(self) -> int:
        """Number of neurons of all classes."""
        return int(np.prod(self._tail.output_shape))

    @property
    def neurons_per_class(self) -> int:
        """Neurons that share a label; those of class k are k * neurons_per_class onwards."""
        return self.neurons // self.n_classes

    @property
    def num_weights(self) -> int:
        """Connections of each neuron."""
        return int(self._tail.learning.num_weights)

    @property
    def weights(self) -> NDArray[np.uint8]:
        """Connections, 0 or 1, uint8 (spikes, neurons); each column has num_weights ones."""
        weights = self._tail.layers[-1].get_variable("weights")
        return np.asarray(weights, np.uint8).reshape(-1, self.neurons)

    def spikes(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """As `Program.spikes`."""
        return self._program.spikes(images)

    def learn(
        self,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        spikes: NDArray[np.uint8] | None = None,
    ) -> None:
        """Learn cases one after the other, in order; each call is reproducible by itself.

        Parameters
        ----------
        images : uint8 array, shape (n, height, width, 3)
        labels : int64 array, shape (n,)
            In [0, n_classes); Akida would ignore others silently, so they are a ValueError.
        spikes : uint8 array, shape (n, n_spikes), optional
            The images' spikes where the caller has them; saves the body's pass in software.
        """
        if len(labels) and not 0 <= labels.min() <= labels.max() < self.n_classes:
            raise ValueError(f"a label is outside the {self.n_classes} classes")
        if not len(labels):
            return
        if available_device().real:
            self._learn_through_whole(images, labels, akida.devices()[0])
            return
        inputs = self.spikes(images) if spikes is None else spikes
        before, self._tail = self._tail, akida.Model(layers=self._tail.layers)
        free(before)
        self._tails[:] = [self._tail]
        self._tail.fit(inputs[:, None, None, :], labels.astype(np.int32))

    def classify(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Highest potential among each class's neurons, float32 (n, n_classes).

        A potential is the number of a neuron's connections that spike, 0 to num_weights, less
        its threshold. Akida's ``forward`` leaves the threshold of a layer without activation to
        the host, and so does this.
        """
        return self.classify_spikes(self.spikes(images))

    def classify_spikes(self, spikes: NDArray[np.uint8]) -> NDArray[np.float32]:
        """`classify` of images whose spikes (n, n_spikes) are known already."""
        inputs = spikes[:, None, None, :]
        parts = [self._tail.forward(batch) for batch in batches(inputs)]
        potentials = flat(parts, self.neurons, np.float32)
        potentials -= self._tail.layers[-1].get_variable("threshold").astype(np.float32)
        grouped = potentials.reshape(-1, self.n_classes, self.neurons_per_class)
        return np.asarray(grouped.max(axis=2), np.float32)

    def program_neurons(self, weights: NDArray[np.uint8], thresholds: NDArray[np.int32]) -> None:
        """Give all neurons their connections and thresholds.

        Parameters
        ----------
        weights : uint8 array, shape (spikes, neurons)
            0 or 1, ``num_weights`` ones for each neuron; otherwise it is a ValueError.
        thresholds : int32 array, shape (neurons,)
            Subtracted from the number of a neuron's connections that spike.
        """
        if weights.shape != (self._program.n_spikes, self.neurons) or weights.max() > 1:
            raise ValueError(f"weights {weights.shape} do not fit {self.neurons} neurons")
        if (weights.sum(axis=0) != self.num_weights).any():
            raise ValueError(f"every neuron has {self.num_weights} connections")
        layer = self._tail.layers[-1]
        held = layer.get_variable("weights")
        layer.set_variable("weights", weights.reshape(held.shape).astype(held.dtype))
        layer.set_variable("threshold", thresholds.astype(np.int32))

    def add_class(self) -> int:
        """Add the neurons of one more class, those learned stay; returns its index."""
        known = self.neurons
        self._tail.add_classes(1)
        self._draw_weights(known)
        return self.n_classes - 1

    def _draw_weights(self, first: int) -> None:
        """Give the neurons from ``first`` on their seeded connections."""
        layer = self._tail.layers[-1]
        weights = np.array(layer.get_variable("weights"))
        for neuron in range(first, self.neurons):
            generator = np.random.default_rng([self._seed, neuron])
            chosen = generator.choice(weights.shape[2], self.num_weights, replace=False)
            weights[0, 0, :, neuron] = 0
            weights[0, 0, chosen, neuron] = 1
        layer.set_variable("weights", weights)

    def _whole(self) -> Any:
        model = _learning_model(
            self._program.body.layers,
            self.n_classes,
            self.neurons_per_class,
            self.num_weights,
            float(self._tail.learning.learning_competition),
        )
        _copy_learned(self._tail, model)
        return model

    def _learn_through_whole(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], device: Any
    ) -> None:
        """`learn` with the whole program on ``device``, in software where that is None."""
        try:
            with temporary(self._whole()) as whole:
                whole.map(device, hw_only=device is not None)
                whole.fit(images, labels.astype(np.int32))
                _copy_learned(whole, self._tail)
        except RuntimeError as error:
            raise DeviceError(f"the Akida device stopped while learning: {error}") from error
        if (self.weights.sum(axis=0) != self.num_weights).any():
            raise DeviceError("the Akida device returned weights that no learning can produce")


def _learning_model(
    layers: list[Any], n_classes: int, neurons_per_class: int, num_weights: int, competition: float
) -> Any:
    model = akida.Model(layers=layers)
    units = n_classes * neurons_per_class
    model.add(akida.FullyConnected(units, _LEARNING_LAYER, weights_bits=1, activation=False))
    rule = akida.AkidaUnsupervised(num_weights, n_classes, learning_competition=competition)
    model.compile(rule)
    return model


def _spike_input(program: Program) -> Any:
    return akida.InputData((1, 1, program.n_spikes), input_bits=1)


def _copy_learned(source: Any, target: Any) -> None:
    for name in _LEARNED:
        target.layers[-1].set_variable(name, source.layers[-1].get_variable(name))
