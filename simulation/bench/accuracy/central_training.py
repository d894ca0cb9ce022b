"""Training on pooled cases: any Keras model, one Adam from the first step to the last.

Sites start Adam afresh in every round; a centralised baseline must not, or it would be compared
with its hands tied. The step is compiled once for each of batch norm's two ways.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.arrays import from_npz, to_npz
from common.data.augmentation import augment
from common.data.balance import class_log_priors
from common.data.cases import Cases
from common.files import sha256_of, write_atomically
from common.keras_setup import keras, tf
from common.seeds import derive_seed
from server.plan import fixes_statistics, half_cosine

PREDICT_BATCH = 128


@dataclass(frozen=True)
class Schedule:
    """How a model is trained.

    Parameters
    ----------
    epochs, batch : int
    learning_rate : float
        Of Adam (arXiv 1412.6980) in the first epoch; it falls along half a cosine to a fiftieth.
    freeze_batch_norm : float
        Share, 0 to 1, of the epochs after which batch norm's statistics are fixed, as in a run
        (FixBN, arXiv 2303.06530); 1 for never.
    prior_strength : float
        tau of the logit adjustment (arXiv 2007.07314); 0 switches it off.
    augmented : bool
        A random view (`common.data.augmentation`) of every image in every epoch.
    mixup : float
        alpha of mixup (arXiv 1710.09412), one share a batch as in its authors' code; 0 for none.
    seed : int
        Of the order of cases, the augmentation and mixup.
    """

    epochs: int = 48
    batch: int = 64
    learning_rate: float = 1e-3
    freeze_batch_norm: float = 0.5
    prior_strength: float = 1.0
    augmented: bool = True
    mixup: float = 0.0
    seed: int = 0

    def fixed_batch_norm(self, epoch: int) -> bool:
        """Whether an epoch, counted from 1, leaves batch norm's statistics as they are."""
        return fixes_statistics(self.freeze_batch_norm, epoch, self.epochs)


@dataclass(frozen=True)
class Epoch:
    """What is told after an epoch, counted from 1; ``seconds`` include no validation."""

    number: int
    loss: float
    seconds: float


class CentralTrainer:
    """A model and its one optimizer.

    Parameters
    ----------
    model : keras.Model
        uint8 images (n, size, size, 3) to logits (n, n_classes).
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self._optimizer = keras.optimizers.Adam(1e-3)
        self._optimizer.build(model.trainable_variables)
        size = model.input_shape[1:]
        inputs = [
            tf.TensorSpec([None, *size], tf.uint8),
            tf.TensorSpec([None], tf.int64),
            tf.TensorSpec([None], tf.int64),
            tf.TensorSpec([], tf.float32),
            tf.TensorSpec([model.output_shape[-1]], tf.float32),
        ]

        def step_of(fixed_batch_norm: bool) -> "tf.types.experimental.GenericFunction":
            @tf.function(input_signature=inputs)
            def step(
                images: tf.Tensor, labels: tf.Tensor, others: tf.Tensor, share: tf.Tensor,
                priors: tf.Tensor,
            ) -> tf.Tensor:  # fmt: skip
                variables = model.trainable_variables
                with tf.GradientTape() as tape:
                    logits = model(images, training=not fixed_batch_norm)
                    logits = tf.cast(logits, tf.float32) + priors
                    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits
                    each = share * entropy(labels, logits) + (1 - share) * entropy(others, logits)
                    loss = tf.reduce_mean(each)
                gradients = tape.gradient(loss, variables)
                self._optimizer.apply_gradients(zip(gradients, variables, strict=True))
                return loss

            return step

        self._steps = {fixed: step_of(fixed) for fixed in (False, True)}
        self._forward = tf.function(
            lambda images: tf.cast(model(images, training=False), tf.float32),
            input_signature=inputs[:1],
        )

    def train(
        self,
        cases: Cases,
        schedule: Schedule,
        told: Callable[[Epoch], None] = lambda epoch: None,
        partial: Path | None = None,
    ) -> None:
        """Train on cases (at least one); equal arguments give equal bits on one machine.

        ``told`` hears of every epoch. After each the state is kept in the file ``partial``, from
        which a stopped training of the same model, cases and schedule goes on; whoever has
        stored the result removes it. A file of another training is not used.
        """
        priors = class_log_priors(
            cases.labels, self.model.output_shape[-1], tau=schedule.prior_strength
        )
        key = self._key(cases, schedule)
        for number in range(1 + self._resume(partial, key), schedule.epochs + 1):
            started = time.perf_counter()
            rate = half_cosine(schedule.learning_rate, number - 1, schedule.epochs)
            self._optimizer.learning_rate.assign(rate)
            loss = self._epoch(cases, schedule, number, tf.constant(priors))
            told(Epoch(number, loss, time.perf_counter() - started))
            if partial is not None and number < schedule.epochs:
                write_atomically(partial, to_npz(self._state(number, key)))

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits, float32 (n, n_classes), of at least one uint8 image (n, size, size, 3)."""
        parts = [
            self._forward(tf.constant(images[i : i + PREDICT_BATCH])).numpy()
            for i in range(0, len(images), PREDICT_BATCH)
        ]
        return np.asarray(np.concatenate(parts), np.float32)

    def _epoch(self, cases: Cases, schedule: Schedule, number: int, priors: tf.Tensor) -> float:
        """Mean loss of one pass; what is drawn depends on the seed and the epoch only."""
        rng = np.random.default_rng(derive_seed(schedule.seed, "epoch", number))
        step = self._steps[schedule.fixed_batch_norm(number)]
        order, losses = rng.permutation(len(cases)), []
        for first in range(0, len(order), schedule.batch):
            chosen = order[first : first + schedule.batch]
            if len(chosen) == 1 and len(order) > 1:
                continue  # batch norm has no variance to learn from a single case
            images, labels = cases.images[chosen], cases.labels[chosen]
            if schedule.augmented:
                images = augment(images, rng)
            others, share = labels, 1.0
            if schedule.mixup > 0:
                images, others, share = mixed(images, labels, schedule.mixup, rng)
            loss = step(*map(tf.constant, (images, labels, others)), tf.constant(share), priors)
            losses.append(float(loss))
        return float(np.mean(losses))

    def _variables(self) -> list[tf.Variable]:
        return [*self.model.weights, *self._optimizer.variables]

    def _state(self, number: int, key: str) -> dict[str, NDArray[Any]]:
        values = {f"v{i}": variable.numpy() for i, variable in enumerate(self._variables())}
        return {**values, "epochs": np.array(number), "key": np.array(key)}

    def _resume(self, partial: Path | None, key: str) -> int:
        """Take up the state in the file; the epochs that it has behind it, 0 without one."""
        try:
            state = {} if partial is None else from_npz(partial.read_bytes())
        except (OSError, ValueError):
            return 0
        if not state or str(state["key"]) != key:
            return 0
        for i, variable in enumerate(self._variables()):
            variable.assign(state[f"v{i}"])
        return int(state["epochs"])

    def _key(self, cases: Cases, schedule: Schedule) -> str:
        """SHA-256 over what a state depends on, the weights at the start too."""
        names = [f"{v.name}{v.shape}{v.dtype.name}" for v in self._variables()]
        told = repr((schedule, names)).encode()
        start = b"".join(weight.numpy().tobytes() for weight in self.model.weights)
        return sha256_of(told + start + cases.images.tobytes() + cases.labels.tobytes())


def mixed(
    images: NDArray[np.uint8], labels: NDArray[np.int64], alpha: float, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.int64], float]:
    """Each image laid over another of the batch (mixup, arXiv 1710.09412).

    Returns
    -------
    images : uint8 array, shape (n, size, size, 3)
        share * own + (1 - share) * other, rounded.
    others : int64 array, shape (n,)
        Labels of the other images.
    share : float
        0 to 1, drawn from Beta(alpha, alpha); one for the batch.
    """
    share = float(rng.beta(alpha, alpha))
    partner = rng.permutation(len(images))
    own, other = images.astype(np.float32), images[partner].astype(np.float32)
    laid = np.rint(share * own + (1 - share) * other).astype(np.uint8)
    return laid, labels[partner], share
