"""The two trainable forms of QANA behind one interface: the float graph and the quantized chain.

One model per form and shape lives in a process; weights are set before each use. Nothing is
built or traced again from round to round or site to site, so memory does not grow.
"""

import hashlib
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from common.keras_setup import keras, tf
from common.qana.config import QanaConfig
from common.qana.network import build_training_graph
from common.qana.quantize import quantized_model, quantized_weights
from common.qana.weights import NamedWeights, named_weights, set_weights

if TYPE_CHECKING:
    from common.qana.chip_chain import Outputs

Phase = Literal["float", "qat"]

PREDICT_BATCH = 128


class Network:
    """A Keras model of one phase with named weights.

    Attributes
    ----------
    model : keras.Model
        uint8 images (n, size, size, 3) to logits (n, n_classes). The quantized phase takes its
        variables and its conversion from it and computes by `common.qana.chip_chain`, which is
        faster and gives the same integers.
    phase : "float" or "qat"
    """

    def __init__(self, model: keras.Model, phase: Phase) -> None:
        self.model = model
        self.phase = phase
        if phase == "qat":
            from common.qana.chip_chain import ChipChain  # imports quantizeml

            self._chain = ChipChain(model)
        self._logits = tf.function(
            lambda x: self.forward(x, training=False),
            input_signature=[tf.TensorSpec([None, *model.input_shape[1:]], tf.uint8)],
        )

    def forward(self, images: tf.Tensor, training: bool) -> tf.Tensor:
        """Logits, float32 (n, n_classes), of uint8 images, with gradients for the weights.

        ``training`` sets what batch norm does; the quantized network has none.
        """
        if self.phase == "qat":
            return self._chain(images).logits
        return self.model(images, training=training)

    def with_activations(self, images: tf.Tensor) -> "Outputs":
        """What the quantized chain computes on the way to its logits, all with gradients."""
        return self._chain(images)

    def weights(self) -> NamedWeights:
        """All weights that travel, in the model's order."""
        if self.phase == "qat":
            return quantized_weights(self.model)
        return named_weights(self.model)

    def set_weights(self, weights: NamedWeights) -> None:
        """Assign the weights that travel; quantizer ranges stay as built."""
        set_weights(self.model, {**named_weights(self.model), **weights})

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits, float32 (n, n_classes), of uint8 images (n, size, size, 3)."""
        parts = [
            self._logits(tf.constant(images[i : i + PREDICT_BATCH])).numpy()
            for i in range(0, len(images), PREDICT_BATCH)
        ]
        if not parts:
            return np.zeros((0, self.model.output_shape[-1]), np.float32)
        return np.asarray(np.concatenate(parts), np.float32)

    def spikes_and_logits(
        self, images: NDArray[np.uint8]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Spikes uint8 (n, units) and logits float32 (n, c) of the quantized chain."""
        forward = self._spikes_and_logits
        parts = [
            forward(tf.constant(images[i : i + PREDICT_BATCH]))
            for i in range(0, len(images), PREDICT_BATCH)
        ]
        units = self.model.get_layer("spikes").output_shape[-1]
        empty = np.zeros((0, units), np.uint8), np.zeros((0, self.model.output_shape[-1]), "f4")
        spikes = np.concatenate([empty[0], *(p[0].numpy() > 0 for p in parts)])
        logits = np.concatenate([empty[1], *(p[1].numpy() for p in parts)])
        return spikes.astype(np.uint8), logits.astype(np.float32)

    @cached_property
    def _spikes_and_logits(self) -> "tf.types.experimental.GenericFunction":
        def forward(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            outputs = self._chain(images)
            return outputs.spikes, outputs.logits

        shape = [None, *self.model.input_shape[1:]]
        return tf.function(forward, input_signature=[tf.TensorSpec(shape, tf.uint8)])


@lru_cache(maxsize=4)
def network(phase: Phase, config: QanaConfig, n_classes: int) -> Network:
    """The process's one network of this phase and shape."""
    if phase == "qat":
        return Network(quantized_model(config, n_classes), phase)
    return Network(build_training_graph(config, n_classes, seed=0), phase)


def initial_weights(config: QanaConfig, n_classes: int, seed: int) -> NamedWeights:
    """Freshly drawn weights of the float network; they depend on the arguments only."""
    return named_weights(build_training_graph(config, n_classes, seed))


def model_hash(config: QanaConfig, n_classes: int) -> str:
    """SHA-256 over the names and shapes of the float network's weights, in order.

    Both sides compute it from their own code; equal hashes mean that updates fit.
    """
    weights = network("float", config, n_classes).weights()
    text = ";".join(f"{name}{array.shape}" for name, array in weights.items())
    return hashlib.sha256(text.encode()).hexdigest()
