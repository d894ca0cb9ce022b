"""Local training of one round at one site, free of any federated engine."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from common.data.augmentation import augment
from common.data.balance import class_log_priors
from common.data.cases import Cases
from common.keras_setup import tf
from common.messages import TrainAsk
from common.qana.config import QanaConfig
from common.qana.networks import Network, Phase, network
from common.qana.weights import NamedWeights
from edge_client import losses
from edge_client.adam import FlatAdam


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
    class_prior : tuple of float
        Shares of the classes that the logits are adjusted by; by default those of the site's own
        cases. With the shares of all sites together a site learns the same scores as they would
        on pooled cases: a class that it lacks is pushed down by as much as it is rare overall.
    proximal : float
        mu of FedProx (arXiv 1812.06127); 0 is plain local training.
    seed : int
        Of the order of cases and the augmentation; derived from (run seed, round, site).
    fixed_batch_norm : bool
        Normalize by the statistics the network came with, as inference does, and leave them as
        they are (FixBN, arXiv 2303.06530); no effect on the quantized network, which has none.
    event_penalty : float
        Weight of the mean level (0 to 15) over all activations of the quantized chain, added to
        the loss so that fewer of them are events on the chip; no effect in the float phase.
    distillation : float
        Share, 0 to 1, of the float network's answers in the targets of the quantized one (Hinton
        et al., arXiv 1503.02531; of quantized networks: Mishra and Marr, arXiv 1711.05852); the
        rest are the labels. No effect in the float phase. Cases of classes that the float
        network does not know keep their labels.
    spike_band, decorrelation : float
        Weights of `losses.out_of_band` and `losses.covariance` of the spikes; no effect in the
        float phase.
    """

    phase: Phase
    epochs: int
    batch: int
    learning_rate: float
    prior_strength: float
    proximal: float
    seed: int
    class_prior: tuple[float, ...] = ()
    fixed_batch_norm: bool = False
    event_penalty: float = 0.0
    distillation: float = 0.0
    spike_band: float = 0.0
    decorrelation: float = 0.0

    @property
    def penalized(self) -> bool:
        """Whether the loss has a part that looks at what is within the network."""
        weights = (self.event_penalty, self.spike_band, self.decorrelation)
        return self.phase == "qat" and any(weight > 0 for weight in weights)


@dataclass(frozen=True)
class TrainResult:
    """Trained weights, the number of cases they saw, mean loss of the last epoch, wall seconds.

    The loss is that of the labels, whatever else the network was trained for.
    """

    weights: NamedWeights
    examples: int
    loss: float
    seconds: float


class _Trainer:
    """The compiled training step of one network, used by every site and round of a process."""

    def __init__(
        self, net: Network, penalized: bool, fixed_batch_norm: bool, teacher: Network | None
    ) -> None:
        self.net = net
        self.teacher = teacher
        variables = net.model.trainable_variables
        self._optimizer = FlatAdam(variables)
        size = net.model.input_shape[1:]

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, *size], tf.uint8),
                tf.TensorSpec([None], tf.int64),
                tf.TensorSpec([net.model.output_shape[-1]], tf.float32),
                tf.TensorSpec([5], tf.float32),
            ]
        )
        def step(
            images: tf.Tensor,
            labels: tf.Tensor,
            priors: tf.Tensor,
            strengths: tf.Tensor,
        ) -> tf.Tensor:
            proximal, distillation, event_penalty, spike_band, decorrelation = tf.unstack(strengths)
            answers = None if teacher is None else teacher.forward(images, training=False)
            with tf.GradientTape() as tape:
                if penalized:
                    logits, spikes, activations = net.with_activations(images)
                    penalty = (
                        event_penalty * losses.mean_level(activations)
                        + spike_band * losses.out_of_band(spikes)
                        + decorrelation * losses.covariance(spikes)
                    )
                else:
                    logits, penalty = net.forward(images, training=not fixed_batch_norm), 0.0
                each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits + priors)
                loss = tf.reduce_mean(each)
                if answers is not None:
                    each = losses.distilled(each, logits, answers, labels, priors, distillation)
                total = tf.reduce_mean(each) + penalty
            self._optimizer.apply(tape.gradient(total, variables), proximal)
            return loss

        self.step = step

    def start(self, weights: NamedWeights, learning_rate: float) -> None:
        """Begin a site's round: the global weights, a fresh optimizer, FedProx's anchors."""
        self.net.set_weights(weights)
        self._optimizer.start(learning_rate)


@lru_cache(maxsize=4)
def _trainer(
    phase: Phase,
    config: QanaConfig,
    n_classes: int,
    penalized: bool,
    fixed_batch_norm: bool,
    taught_classes: int,
) -> _Trainer:
    """``taught_classes`` is the number of classes of the network to distil from, 0 for none."""
    teacher = network("float", config, taught_classes) if taught_classes else None
    return _Trainer(network(phase, config, n_classes), penalized, fixed_batch_norm, teacher)


def train_locally(
    weights: NamedWeights,
    cases: Cases,
    config: QanaConfig,
    n_classes: int,
    settings: TrainSettings,
    teacher: NamedWeights | None = None,
    told: Callable[[int, float], None] = lambda epoch, loss: None,
) -> TrainResult:
    """Train the global weights on a site's cases (at least one) and return the site's weights.

    ``teacher`` are the float network's, needed for distillation only; its classes are the first
    of ``n_classes``. ``told`` hears of every epoch, counted from 1, and its mean loss.

    The loss is cross entropy with logits shifted by a log class prior, so that rare classes count
    as much as frequent ones (logit adjustment). Equal arguments give equal
    bits on one machine.
    """
    started = time.perf_counter()
    taught_classes = 0
    if settings.phase == "qat" and settings.distillation > 0 and teacher:
        taught_classes = len(teacher["head/bias"])
    fixed = settings.fixed_batch_norm and settings.phase == "float"
    trainer = _trainer(settings.phase, config, n_classes, settings.penalized, fixed, taught_classes)
    trainer.start(weights, settings.learning_rate)
    if trainer.teacher is not None and teacher:
        trainer.teacher.set_weights(teacher)
    if settings.class_prior:
        shares = np.array(settings.class_prior, np.float32)
        priors = np.float32(settings.prior_strength) * np.log(shares)
    else:
        priors = class_log_priors(cases.labels, n_classes, tau=settings.prior_strength)
    rng = np.random.default_rng(settings.seed)
    strengths = tf.constant(
        [
            settings.proximal,
            settings.distillation,
            settings.event_penalty,
            settings.spike_band,
            settings.decorrelation,
        ],
        tf.float32,
    )
    found: list[float] = []
    for epoch in range(1, settings.epochs + 1):
        order = rng.permutation(len(cases))
        found = []
        for first in range(0, len(order), settings.batch):
            chosen = order[first : first + settings.batch]
            if len(chosen) == 1 and len(order) > 1:
                continue  # batch norm has no variance to learn from a single case
            loss = trainer.step(
                tf.constant(augment(cases.images[chosen], rng)),
                tf.constant(cases.labels[chosen]),
                tf.constant(priors),
                strengths,
            )
            found.append(float(loss))
        told(epoch, float(np.mean(found)))
    return TrainResult(
        trainer.net.weights(), len(cases), float(np.mean(found)), time.perf_counter() - started
    )


def train_as_asked(
    ask: TrainAsk,
    weights: NamedWeights,
    cases: Cases,
    teacher: NamedWeights | None = None,
    told: Callable[[int, float], None] = lambda epoch, loss: None,
) -> TrainResult:
    """`train_locally` as a coordinator's message says."""
    settings = TrainSettings(
        phase=ask.phase,
        epochs=ask.epochs,
        batch=ask.batch,
        learning_rate=ask.learning_rate,
        prior_strength=ask.prior_strength,
        proximal=ask.proximal,
        seed=ask.seed,
        class_prior=ask.class_prior,
        fixed_batch_norm=ask.fixed_batch_norm,
        event_penalty=ask.event_penalty,
        distillation=ask.distillation,
    )
    return train_locally(weights, cases, ask.config, len(ask.classes), settings, teacher, told)
