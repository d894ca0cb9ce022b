"""Adam with FedProx's term for all variables of a network as one vector."""

from collections.abc import Sequence

import numpy as np

from common.keras_setup import tf

FIRST_DECAY = 0.9
SECOND_DECAY = 0.999
EPSILON = 1e-7
"""Those of arXiv 1412.6980; epsilon is Keras's."""


class FlatAdam:
    """Adam (arXiv 1412.6980) and FedProx's pull towards where a round began (arXiv 1812.06127).

    The same bits as Keras's Adam, which runs some thirty operations for each variable; a network
    has dozens of them, mostly small.
    """

    def __init__(self, variables: Sequence[tf.Variable]) -> None:
        self._variables = variables
        self._sizes = [int(np.prod(v.shape)) for v in variables]
        self._learning_rate = tf.Variable(1e-3, trainable=False)
        self._steps = tf.Variable(0.0, trainable=False)
        self._anchor, self._mean, self._square = (
            tf.Variable(tf.zeros([sum(self._sizes)]), trainable=False) for _ in range(3)
        )

    def start(self, learning_rate: float) -> None:
        """Begin a round at the variables' present values."""
        self._learning_rate.assign(learning_rate)
        self._steps.assign(0.0)
        self._anchor.assign(_flat(self._variables))
        for state in (self._mean, self._square):
            state.assign(tf.zeros_like(state))

    def apply(self, gradients: Sequence[tf.Tensor], proximal: tf.Tensor) -> None:
        """One step; ``proximal`` is mu of FedProx. In the order of Keras's operations."""
        gradient = _flat(gradients) + proximal * (_flat(self._variables) - self._anchor)
        step = self._steps.assign_add(1.0)
        first, second = tf.pow(FIRST_DECAY, step), tf.pow(SECOND_DECAY, step)
        rate = self._learning_rate * tf.sqrt(1.0 - second) / (1.0 - first)
        mean = self._mean.assign_add((gradient - self._mean) * (1.0 - FIRST_DECAY))
        square = self._square.assign_add(
            (tf.square(gradient) - self._square) * (1.0 - SECOND_DECAY)
        )
        change = mean * rate / (tf.sqrt(square) + EPSILON)
        for variable, part in zip(self._variables, tf.split(change, self._sizes), strict=True):
            variable.assign_sub(tf.reshape(part, variable.shape))


def _flat(values: Sequence[tf.Tensor]) -> tf.Tensor:
    return tf.concat([tf.reshape(value, [-1]) for value in values], 0)
