"""A program's own head by itself, for images whose spikes are known already."""

from typing import Any

import akida
import numpy as np
from numpy.typing import NDArray

from common.akida_runtime.devices import available_device
from common.akida_runtime.models import batches, flat, free_with
from common.akida_runtime.program import Program
from common.errors import BundleDamaged

_DENSE = akida.LayerType.FullyConnected


class SpikeHead:
    """The last layer of a program as a model of its own.

    The program's head and the learning layer look at the same spikes, so an answer of both needs
    one pass through the body instead of two. The logits equal `Program.predict_potentials` bit for
    bit (tested).

    Parameters
    ----------
    program : Program
        Raises BundleDamaged where its head is no dense layer of logits.
    """

    def __init__(self, program: Program) -> None:
        head: Any = program.model.layers[-1]
        shape = head.parameters
        if shape.layer_type != _DENSE or shape.activation:
            raise BundleDamaged(
                f"the program's last layer {head.name!r} is no dense layer of logits; convert the "
                "program anew"
            )
        self._classes = int(shape.units)
        self._model = akida.Model(layers=[akida.InputData((1, 1, program.n_spikes), input_bits=1)])
        self._model.add(
            akida.FullyConnected(
                self._classes, head.name, weights_bits=shape.weights_bits, activation=False
            )
        )
        for name in head.get_variable_names():
            self._model.layers[-1].set_variable(name, head.get_variable(name))
        free_with(self, [self._model])

    def potentials(self, spikes: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits float32 (n, classes) of spikes (n, n_spikes)."""
        parts = [self._model.predict(batch) for batch in batches(spikes[:, None, None, :])]
        return flat(parts, self._classes, np.float32)


def spikes_and_potentials(
    program: Program, images: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """`Program.spikes` and `Program.predict_potentials` of images with one pass in software.

    A device computes the logits itself: what it gives is what is to be judged there.
    """
    spikes = program.spikes(images)
    if available_device().real:
        return spikes, program.predict_potentials(images)
    return spikes, SpikeHead(program).potentials(spikes)
