"""Pretraining: QANA's pooled features learn to predict the targets of the pictures."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.data.augmentation import augment
from common.keras_setup import keras, tf
from common.qana.config import QanaConfig
from common.qana.network import build_training_graph
from common.qana.weights import NamedWeights, named_weights
from common.seeds import derive_seed
from server.plan import half_cosine
from server.pretraining.targets import Targets

LEARNING_RATE = 2e-3
BATCH = 64
_HELD_BACK = 40
"""One of so many pictures is kept out of training: how well are those of new ones predicted?"""


@dataclass(frozen=True)
class Pretrained:
    """The network's weights, and what was left of the targets' variance.

    Parameters
    ----------
    weights : named float32 arrays
        Of the float network up to its pooled features; what comes after them is as drawn.
    unexplained : float
        Weighted mean squared error on pictures that were not trained on; 1 is no better than
        the mean.
    """

    weights: NamedWeights
    unexplained: float


def distil(
    config: QanaConfig,
    pictures: NDArray[np.uint8],
    targets: Targets,
    epochs: int,
    seed: int,
    told: Callable[[int, float, float], None] = lambda epoch, loss, unexplained: None,
) -> Pretrained:
    """Regress the targets from the layer "pool" by a linear map, which is dropped afterwards.

    FitNets' hints (arXiv 1412.6550) with the whole of the network before the classifier as the
    guided part. Adam; the rate falls along half a cosine over all steps.

    Parameters
    ----------
    pictures : uint8 array, shape (n, size, size, 3)
        At least 80.
    targets : Targets
    epochs, seed : int
    told : callable
        Of every epoch, counted from 1, its loss, and the unexplained share of held back pictures.
    """
    model = build_training_graph(config, 2, derive_seed(seed, "pretraining", "weights"))
    pooled = keras.layers.Reshape((config.transform,), name="pooled")(
        model.get_layer("pool").output
    )
    net = keras.Model(model.input, keras.layers.Dense(targets.values.shape[1], name="hint")(pooled))
    optimizer = keras.optimizers.Adam(LEARNING_RATE)
    optimizer.build(net.trainable_variables)
    importance = tf.constant(targets.weights)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, *pictures.shape[1:]], tf.uint8),
            tf.TensorSpec([None, targets.values.shape[1]], tf.float32),
        ]
    )
    def step(images: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(importance * tf.square(net(images, training=True) - wanted))
        gradients = tape.gradient(loss, net.trainable_variables)
        optimizer.apply_gradients(zip(gradients, net.trainable_variables, strict=True))
        return loss

    held = np.arange(0, len(pictures), _HELD_BACK)
    rest = np.setdiff1d(np.arange(len(pictures)), held)
    rng = np.random.default_rng(derive_seed(seed, "pretraining", "order"))
    batch = min(BATCH, len(rest))
    steps, done, unexplained = epochs * (len(rest) // batch), 0, 1.0
    for epoch in range(1, epochs + 1):
        order, losses = rng.permutation(rest), []
        for first in range(0, len(order) - batch + 1, batch):
            chosen = order[first : first + batch]
            optimizer.learning_rate.assign(half_cosine(LEARNING_RATE, done, steps))
            images = tf.constant(augment(pictures[chosen], rng))
            losses.append(float(step(images, tf.constant(targets.values[chosen]))))
            done += 1
        errors = np.square(net.predict(pictures[held], verbose=0) - targets.values[held])
        unexplained = float(np.mean(targets.weights * errors))
        told(epoch, float(np.mean(losses)), unexplained)
    return Pretrained(named_weights(model), unexplained)
