"""Heat maps: how much each place of a picture matters to a frozen network.

Grad-CAM (arXiv 1610.02391): the last feature maps, weighted by the mean gradient of a class's
logit, summed, and cut at zero. It shows what speaks for one of ImageNet's classes, and none of
these is a lesion.

Contrast asks for no class. Its heat is a product: how strong the last features are, times how
unlike the frame's border the features are at two finer layers (dermatoscopic frames have skin at
their border). It was chosen because it finds lesions better, see `docs/data.md`.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from common.keras_setup import keras, tf

Method = Literal["contrast", "grad-cam"]

_SMALL = 1e-6


class HeatMaps:
    """Heat maps of one network.

    Parameters
    ----------
    model : keras.Model
        Images to logits (n, classes), for Grad-CAM; anything later than ``layers`` for contrast.
    layers : tuple of str
        Layers with feature maps (n, rows, columns, channels), finest first. Grad-CAM takes one.
    method : "contrast" or "grad-cam"
    """

    def __init__(self, model: keras.Model, layers: tuple[str, ...], method: Method) -> None:
        features = [model.get_layer(layer).output for layer in layers]
        front = keras.Model(model.input, features)
        back = keras.Model(features[-1], model.output) if method == "grad-cam" else None

        def run(images: Any) -> Any:
            found = front(images, training=False)
            if back is not None:
                return grad_cam(found, back)
            return contrast(found)

        signature = [tf.TensorSpec([None, *model.input_shape[1:]], tf.float32)]
        self._run = tf.function(run, signature)

    def of(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Heat, float32 (n, rows, columns) from 0 on, of normalized images (n, side, side, 3)."""
        return np.asarray(self._run(tf.constant(images)).numpy(), np.float32)


def grad_cam(features: Any, back: keras.Model) -> Any:
    """Grad-CAM, float32 (n, rows, columns), of each image's own top class.

    ``back`` leads from the features to the logits.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(features)
        top = tf.reduce_max(back(features, training=False), axis=1)
    weights = tf.reduce_mean(tape.gradient(top, features), axis=(1, 2), keepdims=True)
    return tf.nn.relu(tf.reduce_sum(weights * features, axis=-1))


def contrast(features: list[Any]) -> Any:
    """Strength of the last features times unlikeness to the border of the finer ones.

    Each factor is stretched to 0..1 over its frame, so the heat is 0 to 1, float32
    (n, rows, columns) of the finest layer. A factor that is the same everywhere makes it 0.
    """
    *finer, last = features
    heat = _stretched(tf.sqrt(tf.reduce_mean(tf.square(last), axis=-1, keepdims=True)))
    for maps in reversed(finer):
        heat = tf.image.resize(heat, maps.shape[1:3]) * _stretched(_unlike_border(maps))
    return heat[..., 0]


def _unlike_border(maps: Any) -> Any:
    """One less the cosine to the mean of the outermost cells, (n, rows, columns, 1)."""
    rows, columns = maps.shape[1:3]
    inner = np.zeros((rows, columns, 1), np.float32)
    inner[1:-1, 1:-1] = 1
    border = tf.reduce_sum(maps * (1 - inner), axis=(1, 2), keepdims=True)
    return 1 - tf.reduce_sum(_unit(maps) * _unit(border), axis=-1, keepdims=True)


def _unit(vectors: Any) -> Any:
    return vectors / tf.maximum(tf.norm(vectors, axis=-1, keepdims=True), _SMALL)


def _stretched(values: Any) -> Any:
    """0 at the lowest value of each frame, 1 at the highest; 0 where they are the same."""
    lowest = tf.reduce_min(values, axis=(1, 2), keepdims=True)
    highest = tf.reduce_max(values, axis=(1, 2), keepdims=True)
    return (values - lowest) / tf.maximum(highest - lowest, _SMALL)
