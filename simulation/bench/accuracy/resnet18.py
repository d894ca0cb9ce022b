"""ResNet-18 (He et al., arXiv 1512.03385) in its ImageNet layout, as a float baseline."""

from common.keras_setup import keras, tf
from common.qana.network import BATCH_NORM_MOMENTUM

layers = keras.layers

WIDTHS = (64, 128, 256, 512)
"""Filters of the four stages of two basic blocks (table 1 of the paper)."""

SMALL_WIDTHS = (8, 16, 24, 32)
"""For trying things out: the same layers at a fraction of the work."""

_EPSILON = 1e-5


def resnet18(size: int, n_classes: int, seed: int, widths: tuple[int, ...] = WIDTHS) -> keras.Model:
    """uint8 images (n, size, size, 3) to logits float32 (n, n_classes).

    7x7 convolution of stride 2, 3x3 max pooling of stride 2, four stages of two basic blocks,
    global average pooling: 11.2 million weights. Projections stand where the resolution or width
    changes (option B of the paper). Kernels are drawn as He et al. (arXiv 1502.01852) and depend
    on ``seed`` only. Pixels are scaled to 0..1 as for QANA.
    """
    keras.utils.set_random_seed(seed)
    pixels = keras.Input((size, size, 3), dtype="uint8", name="image")
    x = layers.Rescaling(1.0 / 255.0, name="rescaling")(pixels)
    x = _relu(_convolution(x, widths[0], 7, 2, "stem"), "stem_relu")
    x = layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(x)
    for stage, width in enumerate(widths):
        x = _basic_block(x, width, 1 if stage == 0 else 2, f"s{stage}b0")
        x = _basic_block(x, width, 1, f"s{stage}b1")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(pixels, layers.Dense(n_classes, name="head")(x), name="resnet18")


class _SmallMapConvolution(keras.layers.Conv2D):
    """3x3 convolution of stride 1 as one matrix product.

    On a map of 2x2 with 512 channels TensorFlow 2.19's own takes 2.5 times as long, forwards and
    backwards, and there it is half of the network's time; on larger maps it is the faster one.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        rows, columns = inputs.shape[1:3]
        padded = tf.pad(inputs, [[0, 0], [1, 1], [1, 1], [0, 0]])
        taps = [padded[:, i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
        seen = tf.reshape(tf.concat(taps, -1), [-1, 9 * inputs.shape[-1]])
        product = tf.matmul(seen, tf.reshape(self.kernel, [-1, self.filters]))
        return tf.reshape(product, [-1, rows, columns, self.filters])


def _basic_block(x: tf.Tensor, width: int, stride: int, name: str) -> tf.Tensor:
    inner = _relu(_convolution(x, width, 3, stride, f"{name}_first"), f"{name}_first_relu")
    inner = _convolution(inner, width, 3, 1, f"{name}_second")
    if stride != 1 or x.shape[-1] != width:
        x = _convolution(x, width, 1, stride, f"{name}_skip")
    return _relu(layers.Add(name=f"{name}_sum")([inner, x]), f"{name}_relu")


def _convolution(x: tf.Tensor, width: int, side: int, stride: int, name: str) -> tf.Tensor:
    kind = _SmallMapConvolution if side == 3 and stride == 1 and x.shape[1] <= 2 else layers.Conv2D
    x = kind(
        width,
        side,
        stride,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)
    return layers.BatchNormalization(
        momentum=BATCH_NORM_MOMENTUM, epsilon=_EPSILON, name=f"{name}_bn"
    )(x)


def _relu(x: tf.Tensor, name: str) -> tf.Tensor:
    return layers.ReLU(name=name)(x)
