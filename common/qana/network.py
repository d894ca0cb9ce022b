"""QANA's training graph: every branch is linear up to a bounded ReLU, so that it folds exactly.

The elements are those of QANA (arXiv 2507.15958): Ghost blocks with residuals, spatially aware
channel attention, squeeze-and-excitation, a 1-bit spike generator and a small head. An Akida
version 1 chip runs a plain chain of convolutions, without Add, Multiply or Concatenate between
layers. Each element is therefore written in a form that `common.qana.fold` turns into one or
two plain convolutions by structural re-parameterization (RepVGG, arXiv 2101.03697).

Layer names are the interface to the fold: block ``s1b0`` owns ``s1b0_primary`` and so on.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from common.keras_setup import keras, tf
from common.qana.config import QanaConfig

layers = keras.layers

BOUND = 6.0
"""Upper bound of every bounded ReLU (ReLU6, Howard et al., arXiv 1704.04861)."""

BATCH_NORM_MOMENTUM = 0.9
BATCH_NORM_EPSILON = 1e-3


@dataclass(frozen=True)
class BlockPlan:
    """Name, input width, output width and stride of one Ghost block."""

    name: str
    inputs: int
    width: int
    stride: int

    @property
    def projected(self) -> bool:
        """Whether the residual needs a 1x1 projection instead of the identity."""
        return self.stride != 1 or self.inputs != self.width


def block_plans(config: QanaConfig) -> list[BlockPlan]:
    """The Ghost blocks of a network in order; a stage's first block has the stage's stride."""
    plans = []
    inputs = config.stem
    for stage, (width, first) in enumerate(zip(config.widths, config.strides, strict=True)):
        for block in range(config.depth):
            stride = first if block == 0 else 1
            plans.append(BlockPlan(f"s{stage}b{block}", inputs, width, stride))
            inputs = width
    return plans


def _batch_norm(x: tf.Tensor, name: str) -> tf.Tensor:
    return layers.BatchNormalization(
        momentum=BATCH_NORM_MOMENTUM, epsilon=BATCH_NORM_EPSILON, name=name
    )(x)


def _bounded(x: tf.Tensor, name: str, bound: float = BOUND) -> tf.Tensor:
    return layers.ReLU(max_value=bound, name=name)(x)


_LAST_TAP = np.array([[0, 0], [0, 1]], np.float32)[:, :, None, None]
"""Multiplied, not padded: TensorFlow 2.19 aborts on a padded kernel before batch norm (its layout
pass takes the padding for the image's)."""


def _at_centre_taps(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """A 1x1 convolution of the pixels under the centre taps of a 3x3 "same" one of stride 2.

    TensorFlow pads an even-sized input of a strided convolution at the bottom and right only,
    so these are the odd rows and columns: the last tap of a 2x2 kernel of stride 2. Cutting them
    out first gives the same numbers, at two to three times the time forwards and backwards.
    """
    return tf.nn.conv2d(x, _LAST_TAP * kernel, 2, "VALID")


class _SkipConvolution(keras.layers.Conv2D):
    """1x1 convolution under the centre taps of a block of stride 2."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return _at_centre_taps(inputs, self.kernel)


class _PrimaryConvolution(keras.layers.Conv2D):
    """1x1 convolution of all pixels, and the same under the centre taps only."""

    def call(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return super().call(inputs), _at_centre_taps(inputs, self.kernel)


def stem(x: tf.Tensor, filters: int) -> tf.Tensor:
    """uint8 pixels 0..255 to [0, 1], then 3x3 convolution of stride 2, batch norm, ReLU6."""
    x = layers.Rescaling(1.0 / 255.0, name="rescaling")(x)
    x = layers.Conv2D(filters, 3, 2, padding="same", use_bias=False, name="stem")(x)
    return _bounded(_batch_norm(x, "stem_bn"), "stem_relu")


def ghost(x: tf.Tensor, plan: BlockPlan) -> tf.Tensor:
    """Half the features by 1x1 convolution, the other half cheaply from them by depthwise 3x3.

    GhostNet (arXiv 1911.11907), without the activation in between: both halves stay linear.
    No batch norm before the depthwise kernel either, since a shift would leak through the
    zero padding and not fold.
    """
    kind = layers.Conv2D if plan.stride == 1 else _PrimaryConvolution
    primary = kind(plan.width // 2, 1, use_bias=False, name=f"{plan.name}_primary")(x)
    primary, centre = (primary, primary) if plan.stride == 1 else primary
    cheap = layers.DepthwiseConv2D(
        3, plan.stride, padding="same", use_bias=False, name=f"{plan.name}_cheap"
    )(primary)
    joined = layers.Concatenate(name=f"{plan.name}_ghost")([centre, cheap])
    return _batch_norm(joined, f"{plan.name}_ghost_bn")


def residual(x: tf.Tensor, plan: BlockPlan) -> tf.Tensor:
    """The identity, or a 1x1 projection where resolution or width change (arXiv 1512.03385)."""
    if not plan.projected:
        return x
    kind = layers.Conv2D if plan.stride == 1 else _SkipConvolution
    x = kind(plan.width, 1, use_bias=False, name=f"{plan.name}_skip")(x)
    return _batch_norm(x, f"{plan.name}_skip_bn")


def attention(x: tf.Tensor, features: tf.Tensor, plan: BlockPlan, squeeze: int) -> tf.Tensor:
    """Spatially aware efficient channel attention as subtractive inhibition.

    A few squeeze channels look at the 3x3 neighbourhood of the block's input; a 1x1 kernel
    spreads them over the features before the bounded ReLU: y = ReLU6(features + E s). The gate
    depends on the input and on the place, like QANA's, but adds instead of multiplying, which
    is what the chip can do (divisive and subtractive inhibition: Koch, Biophysics of
    Computation, ch. 5; efficient channel attention: arXiv 1910.03151).
    """
    squeezed = layers.Conv2D(
        plan.width // squeeze,
        3,
        plan.stride,
        padding="same",
        use_bias=False,
        name=f"{plan.name}_squeeze",
    )(x)
    squeezed = _bounded(_batch_norm(squeezed, f"{plan.name}_squeeze_bn"), f"{plan.name}_s_relu")
    spread = layers.Conv2D(plan.width, 1, use_bias=False, name=f"{plan.name}_spread")(squeezed)
    gated = layers.Add(name=f"{plan.name}_gated")(
        [features, _batch_norm(spread, f"{plan.name}_spread_bn")]
    )
    return _bounded(gated, f"{plan.name}_relu")


Features = Callable[[tf.Tensor, BlockPlan], tf.Tensor]
"""What makes a block's features of its input, batch norm included; `ghost` in QANA."""


def block(x: tf.Tensor, plan: BlockPlan, config: QanaConfig, features: Features) -> tf.Tensor:
    """Features plus residual, bounded, then gated by the attention; less what is left out."""
    found = features(x, plan)
    if "residual" in config.elements:
        found = layers.Add(name=f"{plan.name}_sum")([found, residual(x, plan)])
    found = _bounded(found, f"{plan.name}_f_relu")
    return attention(x, found, plan, config.squeeze) if "attention" in config.elements else found


def transformation(x: tf.Tensor, config: QanaConfig) -> tf.Tensor:
    """1x1 convolution, global average pooling and ReLU6, on a 1x1 map from here on.

    Pooling stands before the ReLU because that is the order Akida version 1 computes.
    """
    x = layers.Conv2D(config.transform, 1, use_bias=False, name="transform")(x)
    x = _batch_norm(x, "transform_bn")
    x = layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
    return _bounded(x, "transform_relu")


def excitation(x: tf.Tensor, config: QanaConfig) -> tf.Tensor:
    """The pooled features and their squeeze-and-excitation, to be added by the spike generator.

    Squeeze-and-excitation (arXiv 1709.01507) in additive form: its excitation is added to the
    spike generator's input instead of multiplied, for the reason given at `attention`.
    """
    excited = layers.Conv2D(
        config.transform // config.squeeze, 1, use_bias=False, name="excite_squeeze"
    )(x)
    excited = _bounded(_batch_norm(excited, "excite_squeeze_bn"), "excite_relu")
    return layers.Concatenate(name="excite")([x, excited])


def spike_generator(x: tf.Tensor, config: QanaConfig) -> tf.Tensor:
    """Drive of every unit, then ReLU1: one bit once quantized.

    A convolution on the 1x1 map rather than a dense layer, because dense layers of this size
    want FNP2 nodes, of which an AKD1500 has one.
    """
    drive = layers.Conv2D(config.spikes, 1, use_bias=False, name="spikes")(x)
    drive = _batch_norm(drive, "spikes_bn")
    # Half a spike of offset centres the threshold of the later 1-bit rounding (0.5).
    drive = layers.Rescaling(0.5, 0.5, name="spikes_offset")(drive)
    return _bounded(drive, "spikes_relu", bound=1.0)


def build_training_graph(
    config: QanaConfig, n_classes: int, seed: int, features: Features = ghost
) -> keras.Model:
    """The float network: uint8 images (n, size, size, 3) to logits float32 (n, n_classes).

    Initial weights depend on ``seed`` only. Other ``features`` than Ghost's do not fold.
    """
    keras.utils.set_random_seed(seed)
    pixels = keras.Input((config.input_size, config.input_size, 3), dtype="uint8", name="image")
    x = stem(pixels, config.stem)
    for plan in block_plans(config):
        x = block(x, plan, config, features)
    x = transformation(x, config)
    if "excitation" in config.elements:
        x = excitation(x, config)
    x = layers.Flatten(name="flatten")(spike_generator(x, config))
    logits = layers.Dense(n_classes, name="head")(x)
    return keras.Model(pixels, logits, name="qana")
