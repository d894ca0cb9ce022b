"""Local training of one round at one site, free of any federated engine."""

import time
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from common.data.augmentation import augment
from common.data.balance import class_log_priors
from common.data.cases import Cases
from common.keras_setup import keras, tf
from common.qana.config import QanaConfig
from common.qana.networks import Network, Phase, network
from common.qana.quantize import ACTIVATION_STEP
from common.qana.weights import NamedWeights


@dataclass(frozen=True)
class TrainSettings:
    """How a site trains in one round.

    Parameters
    ----------
    phase : "float" or "qat"
    epochs : int
        Passes over the site's training cases.
    batch : int
        Cases per step.
    learning_rate : float
        Of Adam (arXiv 1412.6980), whose state starts fresh every round.
    prior_strength : float
        tau of the logit adjustment (arXiv 2007.07314); 0 switches it off, but a class that the
        site lacks drops out of its loss all the same.
    proximal : float
        mu of FedProx (arXiv 1812.06127); 0 is plain local training.
    seed : int
        Of the order of cases and the augmentation; derived from (run seed, round, site).
    event_penalty : float
        Weight of the mean level (0 to 15) over all activations of the quantized chain, added to
        the loss so that fewer of them are events on the chip; no effect in the float phase.
    """

    phase: Phase
    epochs: int
    batch: int
    learning_rate: float
    prior_strength: float
    proximal: float
    seed: int
    event_penalty: float = 0.0


@dataclass(frozen=True)
class TrainResult:
    """Trained weights, the number of cases they saw, mean loss of the last epoch, wall seconds."""

    weights: NamedWeights
    examples: int
    loss: float
    seconds: float


class _Trainer:
    """The compiled training step of one network, used by every site and round of a process."""

    def __init__(self, net: Network, penalized: bool) -> None:
        self.net = net
        self._optimizer = keras.optimizers.Adam(1e-3)
        variables = net.model.trainable_variables
        self._optimizer.build(variables)
        self._anchors = [tf.Variable(v, trainable=False) for v in variables]
        size = net.model.input_shape[1:]

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, *size], tf.uint8),
                tf.TensorSpec([None], tf.int64),
                tf.TensorSpec([net.model.output_shape[-1]], tf.float32),
                tf.TensorSpec([], tf.float32),
                tf.TensorSpec([], tf.float32),
            ]
        )
        def step(
            images: tf.Tensor,
            labels: tf.Tensor,
            priors: tf.Tensor,
            proximal: tf.Tensor,
            event_penalty: tf.Tensor,
        ) -> tf.Tensor:
            with tf.GradientTape() as tape:
                if penalized:
                    logits, *activations = net.with_activations(images, training=True)
                    penalty = event_penalty * _mean_level(activations)
                else:
                    logits, penalty = net.model(images, training=True), 0.0
                loss = tf.reduce_mean(
                    tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits + priors)
                )
                total = loss + penalty
            gradients = tape.gradient(total, variables)
            pulled = [
                g + proximal * (v - a)
                for g, v, a in zip(gradients, variables, self._anchors, strict=True)
            ]
            self._optimizer.apply_gradients(zip(pulled, variables, strict=True))
            return loss

        self.step = step

    def start(self, weights: NamedWeights, learning_rate: float) -> None:
        """Begin a site's round: the global weights, a fresh optimizer, FedProx's anchors."""
        self.net.set_weights(weights)
        for variable in self._optimizer.variables:
            variable.assign(tf.zeros_like(variable))
        self._optimizer.learning_rate.assign(learning_rate)
        for anchor, variable in zip(self._anchors, self.net.model.trainable_variables, strict=True):
            anchor.assign(variable)


def _mean_level(activations: list[tf.Tensor]) -> tf.Tensor:
    """Mean level, 0 to 15, over all activations of a batch of the quantized chain.

    The L1 norm stands for the number of non-zero values, which has no gradient (Georgiadis,
    arXiv 1812.04056).
    """
    values = [activation.to_float() for activation in activations]
    outputs = sum(float(np.prod(value.shape[1:])) for value in values)
    per_image = tf.add_n([tf.reduce_sum(v, axis=[1, 2, 3]) for v in values])
    return tf.reduce_mean(per_image) / (outputs * ACTIVATION_STEP)


@lru_cache(maxsize=4)
def _trainer(phase: Phase, config: QanaConfig, n_classes: int, penalized: bool) -> _Trainer:
    return _Trainer(network(phase, config, n_classes), penalized)


def train_locally(
    weights: NamedWeights,
    cases: Cases,
    config: QanaConfig,
    n_classes: int,
    settings: TrainSettings,
) -> TrainResult:
    """Train the global weights on a site's cases (at least one) and return the site's weights.

    The loss is cross entropy with logits shifted by the site's own log class prior, so that a
    site that lacks a class does not push it down (logit adjustment). Equal arguments give equal
    bits on one machine.
    """
    started = time.perf_counter()
    penalized = settings.phase == "qat" and settings.event_penalty > 0
    trainer = _trainer(settings.phase, config, n_classes, penalized)
    trainer.start(weights, settings.learning_rate)
    priors = class_log_priors(cases.labels, n_classes, tau=settings.prior_strength)
    rng = np.random.default_rng(settings.seed)
    losses: list[float] = []
    for _ in range(settings.epochs):
        order = rng.permutation(len(cases))
        losses = []
        for first in range(0, len(order), settings.batch):
            chosen = order[first : first + settings.batch]
            if len(chosen) == 1 and len(order) > 1:
                continue  # batch norm has no variance to learn from a single case
            loss = trainer.step(
                tf.constant(augment(cases.images[chosen], rng)),
                tf.constant(cases.labels[chosen]),
                tf.constant(priors),
                tf.constant(settings.proximal, tf.float32),
                tf.constant(settings.event_penalty, tf.float32),
            )
            losses.append(float(loss))
    return TrainResult(
        trainer.net.weights(), len(cases), float(np.mean(losses)), time.perf_counter() - started
    )
