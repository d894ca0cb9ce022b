"""The quantized network's forward pass in few TensorFlow operations, for training and inference.

The quantized Keras model (`common.qana.quantize`) owns the kernels and biases and is what cnn2snn
converts. As a forward pass it is slow: quantizeml clips every integer of every layer to a word
length that no accumulator reaches, and takes the gradient of each of its steps. `ChipChain`
computes the same integers and, but for float rounding, the same gradients from the same variables
(tests/qana/test_chip_chain.py).

An activation is, of accumulators w that count from the chip's threshold,

    y = ceil(slope w),    clipped to 0 .. 15 (or 1),

which is the formula of `common.qana.chip_arithmetic` (see `common.qana.chip_units.chip_slopes`).
Its gradient is quantizeml's: straight through the rounding, and 0 outside 0 .. 8.0, where the
quantized ReLU clips.

Weights, too, have their gradient straight through, and the scale s of a kernel has one. With k, b
and m the integers that stand for kernel K / s, bias B / s and ReLU bound M / s, it is

    dL/ds = 1/s (sum (k - K / s) dL/dk + (b - B / s) dL/db + (m - M / s) dL/dm),

all sums over weights. quantizeml sums k dL/dk, by way of the accumulators, over all pixels.
"""

from collections.abc import Callable
from typing import NamedTuple

from common.keras_setup import keras, tf
from common.qana.chip_arithmetic import STEP_FRACTION
from common.qana.chip_units import (
    RELU6_BOUND,
    ChainLayer,
    ChainUnits,
    Units,
    all_but_last,
    chain_layers,
)
from common.qana.quantize import ACTIVATION_STEP

raw = tf.raw_ops
Gradients = tuple[tf.Tensor, tf.Tensor, tf.Tensor]


class Outputs(NamedTuple):
    """Logits float32 (n, classes), spikes float32 (n, units) of 0 and 1, and activations.

    Activations are all others before the head, float32 (n, height, width, channels), of the
    values 0, 0.25 .. 3.75.
    """

    logits: tf.Tensor
    spikes: tf.Tensor
    activations: list[tf.Tensor]


class ChipChain:
    """The forward pass of a quantized Keras model (`common.qana.quantize.quantized_model`).

    Calling it takes uint8 images (n, size, size, 3) to `Outputs`. Activation ranges are constants
    of the model.
    """

    def __init__(self, model: keras.Model) -> None:
        self._layers = chain_layers(model)
        self._units = ChainUnits(self._layers)

    def __call__(self, images: tf.Tensor) -> Outputs:
        """What the network of the present weights computes; all with gradients for them."""
        x = tf.cast(images, tf.float32)
        outputs = []
        for layer, units in zip(self._layers, self._units(), strict=True):
            if layer.positions > 1:  # a sum of 1x1 convolutions is that of the sum
                x = tf.reduce_sum(x, [1, 2], keepdims=True)
            x = _head(layer, units, x) if layer.top == 0 else _activation(layer, units, x)
            outputs.append(x)
        *levels, spikes, logits = outputs
        spikes = tf.reshape(spikes, [-1, spikes.shape[-1]])
        return Outputs(logits, spikes, [level * ACTIVATION_STEP for level in levels])


def _activation(layer: ChainLayer, units: Units, inputs: tf.Tensor) -> tf.Tensor:
    """Levels (n, height, width, channels) of a convolution of levels or pixels."""
    how = {"strides": [1, layer.stride, layer.stride, 1], "padding": "SAME"}

    @tf.custom_gradient
    def apply(
        x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], Gradients]]:
        ratio = kernel / units.kernel_scale
        weights = tf.round(ratio)
        above = tf.nn.bias_add(tf.nn.conv2d(x, weights, **how), units.offset)
        if layer.positions > 1:  # few values, of steps that may be too long for a slope
            levels = tf.math.ceil((STEP_FRACTION * above - 0.5) / units.sixteenths)
        else:
            levels = tf.math.ceil(above * units.slope)
        levels = raw.ClipByValue(t=levels, clip_value_min=0.0, clip_value_max=float(layer.top))

        def gradient(upstream: tf.Tensor) -> Gradients:
            within = tf.nn.relu6(_affine(above, units.mask_scale, units.mask_offset))
            passed = raw.Relu6Grad(gradients=upstream, features=within)
            to_inputs = raw.Conv2DBackpropInput(
                input_sizes=tf.shape(x), filter=weights * units.gain, out_backprop=passed, **how
            )
            to_weights = raw.Conv2DBackpropFilter(
                input=x, filter_sizes=tf.shape(weights), out_backprop=passed, **how
            )
            to_bias = raw.BiasAddGrad(out_backprop=passed)
            # Of all that is above the bound: there ``within`` is 6, elsewhere it is 0 or linear
            # in the accumulators, and these in weights and bias.
            linear = _over_channels(to_weights * weights) + to_bias * (units.bias + 0.5)
            to_bound = _products(within, upstream) - units.mask_scale * linear
            return to_inputs, *_to_float(
                units, kernel, ratio, weights, to_weights, to_bias, to_bound / RELU6_BOUND
            )

        return levels, gradient

    return apply(inputs, tf.convert_to_tensor(layer.kernel), tf.convert_to_tensor(layer.bias))


def _head(layer: ChainLayer, units: Units, inputs: tf.Tensor) -> tf.Tensor:
    """Logits (n, classes) of spikes (n, 1, 1, units)."""

    @tf.custom_gradient
    def apply(
        x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], Gradients]]:
        ratio = kernel / units.kernel_scale
        weights = tf.round(ratio)
        logits = (tf.matmul(x, weights) + units.bias) * units.gain

        def gradient(upstream: tf.Tensor) -> Gradients:
            to_inputs = tf.matmul(upstream, weights * units.gain, transpose_b=True)
            to_weights = tf.matmul(x, upstream, transpose_a=True)
            to_bias = _over_channels(upstream)
            return to_inputs, *_to_float(units, kernel, ratio, weights, to_weights, to_bias, 0.0)

        return logits, gradient

    flat = tf.reshape(inputs, [-1, inputs.shape[-1]])
    return apply(flat, tf.convert_to_tensor(layer.kernel), tf.convert_to_tensor(layer.bias))


def _to_float(
    units: Units,
    kernel: tf.Tensor,
    ratio: tf.Tensor,
    weights: tf.Tensor,
    to_weights: tf.Tensor,
    to_bias: tf.Tensor,
    to_bound: tf.Tensor | float,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Gradients of the float kernel and bias from those of their integers and of the bound.

    The scale's share goes to the largest weights, by which it is set.
    """
    to_kernel = to_weights * (units.gain / units.kernel_scale)
    to_scale = _over_channels(to_kernel * (weights - ratio))
    to_scale += units.gain * (to_bias * units.bias_rounding + to_bound * units.bound_rounding)
    largest = tf.cast(tf.abs(kernel) == units.peak, tf.float32)
    share = to_scale * units.peak_share / _over_channels(largest)
    return to_kernel + largest * tf.sign(weights) * share, to_bias * units.gain * units.bias_gain


def _over_channels(x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(x, all_but_last(x))


def _affine(x: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """x scale + offset per channel; as a depthwise convolution it is one pass, with its ReLU."""
    kernel = tf.reshape(scale, [1, 1, -1, 1])
    return tf.nn.bias_add(tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "VALID"), offset)


def _products(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Sums of x y per channel, in one pass as well."""
    sums = raw.DepthwiseConv2dNativeBackpropFilter(
        input=x,
        filter_sizes=[1, 1, x.shape[-1], 1],
        out_backprop=y,
        strides=[1, 1, 1, 1],
        padding="VALID",
    )
    return tf.reshape(sums, [-1])
