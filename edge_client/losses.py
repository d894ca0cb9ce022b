"""What the quantized network is trained for beside its labels: TensorFlow functions of a batch."""

import math

import numpy as np

from common.keras_setup import tf
from common.neurons import connections_of
from common.qana.quantize import ACTIVATION_STEP


def distilled(
    losses: tf.Tensor,
    logits: tf.Tensor,
    answers: tf.Tensor,
    labels: tf.Tensor,
    priors: tf.Tensor,
    share: tf.Tensor,
) -> tf.Tensor:
    """Each case's loss with the teacher's ``answers`` as ``share`` of its target.

    Both networks' logits are without the prior, so that a site's own class counts do not get
    into what is distilled. Classes that the teacher does not know come last; among the others, as
    if these were equally frequent, they count by their log ``priors``: a site that lacks
    one does not push it down.
    """
    known = int(answers.shape[-1])
    if known < logits.shape[-1]:
        later = logits[:, known:] + priors[known:] + math.log(known)
        logits = tf.concat([logits[:, :known], later], axis=-1)
    unlike = -tf.reduce_sum(tf.nn.softmax(answers) * tf.nn.log_softmax(logits)[:, :known], axis=-1)
    share = tf.where(labels < known, share, 0.0)
    return (1.0 - share) * losses + share * unlike


def mean_level(activations: list[tf.Tensor]) -> tf.Tensor:
    """Mean level, 0 to 15, over all activations (n, height, width, channels) of a batch.

    The L1 norm stands for the number of non-zero values, which has no gradient (Georgiadis,
    arXiv 1812.04056).
    """
    outputs = sum(float(np.prod(value.shape[1:])) for value in activations)
    per_image = tf.add_n([tf.reduce_sum(v, axis=[1, 2, 3]) for v in activations])
    return tf.reduce_mean(per_image) / (outputs * ACTIVATION_STEP)


def out_of_band(spikes: tf.Tensor) -> tf.Tensor:
    """Mean square of how far the share of spiking units is from a neuron's share of connections.

    ``spikes`` is (n, units). An answer is the number of connections that spike, so images that
    spike more answer higher to every class.
    """
    units = int(spikes.shape[1])
    middle = connections_of(units) / units
    return tf.reduce_mean(tf.square(tf.reduce_mean(spikes, axis=1) - middle))


def covariance(spikes: tf.Tensor) -> tf.Tensor:
    """Half the squared covariances of different units, for each unit (DeCov, arXiv 1511.06068)."""
    centred = spikes - tf.reduce_mean(spikes, axis=0)
    found = tf.matmul(centred, centred, transpose_a=True) / tf.cast(tf.shape(spikes)[0], tf.float32)
    off_diagonal = tf.reduce_sum(tf.square(found)) - tf.reduce_sum(
        tf.square(tf.linalg.diag_part(found))
    )
    return 0.5 * off_diagonal / float(int(spikes.shape[1]))
