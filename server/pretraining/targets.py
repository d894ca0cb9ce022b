"""What pretraining learns: a frozen ImageNet network's features of the pictures, whitened."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from common.keras_setup import keras, tf
from common.saliency.lite0 import normalized

COMPONENTS = 256
_SIDE = 224
_BATCH = 64
_SCALE = 4.0
"""Pooled ReLU6 features lie mostly below 1 and far apart: log(1 + 4 f) brings them together."""


@dataclass(frozen=True)
class Targets:
    """Whitened principal components of the features, and how much each of them counts.

    Parameters
    ----------
    values : float32 array, shape (n, components)
        Of mean 0 and variance 1.
    weights : float32 array, shape (components,)
        Mean 1; as the square root of the components' variances.
    explained : float
        Share, 0 to 1, of the features' variance that the components have.
    """

    values: NDArray[np.float32]
    weights: NDArray[np.float32]
    explained: float


def feature_targets(
    pictures: NDArray[np.uint8],
    teacher: keras.Model,
    told: Callable[[int], None] = lambda done: None,
) -> Targets:
    """Targets of uint8 pictures (n, size, size, 3); ``told`` hears how many are done.

    The last feature maps of the ``teacher``, EfficientNet-Lite0 (`load_lite0`), averaged over the
    picture, which is enlarged to 224 x 224 pixels.
    """
    pooled = keras.Model(teacher.input, teacher.get_layer("pool").output)

    @tf.function(input_signature=[tf.TensorSpec([None, *pictures.shape[1:]], tf.float32)])
    def features(batch: tf.Tensor) -> tf.Tensor:
        large = tf.image.resize(batch, (_SIDE, _SIDE), method="bicubic")
        return tf.math.log1p(_SCALE * pooled(large, training=False))

    found = []
    for first in range(0, len(pictures), _BATCH):
        batch = normalized(pictures[first : first + _BATCH])
        found.append(features(tf.constant(batch)).numpy())
        told(first + len(batch))
    return whitened(np.concatenate(found))


def whitened(features: NDArray[np.float32]) -> Targets:
    """The principal components of features (n, width), at most `COMPONENTS` and half of ``n``."""
    components = min(COMPONENTS, features.shape[1], max(1, len(features) // 2))
    pca = PCA(components, whiten=True, svd_solver="covariance_eigh")
    values = pca.fit_transform(features.astype(np.float64))
    weights = np.sqrt(pca.explained_variance_)
    return Targets(
        values.astype(np.float32),
        (weights / weights.mean()).astype(np.float32),
        float(pca.explained_variance_ratio_.sum()),
    )
