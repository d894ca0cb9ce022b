"""What the weights of a quantized chain come to for each channel: integers, steps, slopes.

A few numbers per channel and layer, computed for all layers at once by the operations of quantizeml
and `common.qana.chip_arithmetic`, so that all bits are the same as in the quantized Keras model.
`common.qana.chip_chain` uses them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.keras_setup import keras, tf
from common.qana.chip_arithmetic import SMALLEST_SCALE, STEP_FRACTION, exponent
from common.qana.quantize import CLIPPED_ABOVE

SCALE_BITS = 8
"""Of the integer scales of quantizeml's output quantizers."""

SLOPE_BELOW = 1.0 - 2.0**-23
"""Keeps a product that should be an integer from being rounded up beyond it."""

STEEPEST = 1e6
"""Stands for an infinite slope; times 0 it is 0."""

RELU6_BOUND = 6.0


@dataclass
class ChainLayer:
    """A convolution or the head, with what is known of it before any weights.

    ``weight_bits`` and ``input_bits``: value bits of the integer kernel, fractional bits of the
    input. ``top``: the highest level, 0 for the head, which has none. ``positions``: how many
    accumulators are summed after the convolution.
    """

    kernel: tf.Variable
    bias: tf.Variable
    stride: int
    weight_bits: int
    input_scale: float
    input_bits: int
    output_bits: int = 0
    top: int = 0
    positions: int = 1


class Units(NamedTuple):
    """Numbers of one layer, each float32 (channels,).

    Accumulators count units of a step of the input times the kernel's scale.
    """

    kernel_scale: tf.Tensor
    peak: tf.Tensor  # the largest magnitude in the float kernel
    peak_share: tf.Tensor  # the scale's derivative by it; 0 where the scale is the smallest
    bias: tf.Tensor
    offset: tf.Tensor  # bias less threshold
    slope: tf.Tensor
    sixteenths: tf.Tensor
    gain: tf.Tensor  # levels for a unit in the gradient; for the head, logits
    mask_scale: tf.Tensor
    mask_offset: tf.Tensor  # from accumulators above the threshold to 0 .. 6 within the ReLU
    bias_gain: tf.Tensor  # units for one of the float bias
    bias_rounding: tf.Tensor
    bound_rounding: tf.Tensor  # what rounding added to bias and ReLU bound, over the kernel's scale


def chain_layers(model: keras.Model) -> list[ChainLayer]:
    """The layers of a quantized Keras model (`common.qana.quantize.quantized_model`) in order."""
    found: list[ChainLayer] = []
    scale, bits = 1.0, 0
    for layer in model.layers:
        if hasattr(layer, "weight_quantizer"):
            stride = layer.strides[0] if hasattr(layer, "strides") else 1
            weight_bits = layer.weight_quantizer.value_bits
            found.append(ChainLayer(layer.kernel, layer.bias, stride, weight_bits, scale, bits))
            scale = 1.0
        elif hasattr(layer, "spatial_size"):
            found[-1].positions = int(layer.spatial_size)
        elif hasattr(layer, "out_quantizer"):
            bits = int(layer.out_quantizer.frac_bits)
            found[-1].output_bits = bits
            found[-1].top = 2**layer.out_quantizer.value_bits - 1
        elif hasattr(layer, "scale"):
            scale = float(layer.scale)
    return found


class ChainUnits:
    """`Units` of a chain's layers. Calling it reads their kernels and biases."""

    def __init__(self, layers: list[ChainLayer]) -> None:
        self._layers = layers
        self._channels = [int(layer.kernel.shape[-1]) for layer in layers]
        self._range_share = self._per_channel(1 / (2**x.weight_bits - 1) for x in layers)
        self._input_scale = self._per_channel(x.input_scale for x in layers)
        self._input_bits = self._per_channel(x.input_bits for x in layers)
        self._output_bits = self._per_channel(x.output_bits for x in layers)
        self._activated = self._per_channel(x.top for x in layers) > 0
        # A variable: graphs turn the division by a constant into a multiplication, which the
        # eager mode of a conversion does not, and the last bit of a scale decides some steps.
        positions = self._per_channel(x.positions for x in layers)
        self._positions = tf.Variable(positions, trainable=False)

    def _per_channel(self, values: Iterable[float]) -> NDArray[np.float32]:
        return np.repeat(np.asarray(list(values), np.float32), self._channels)

    def __call__(self) -> list[Units]:
        """The layers' units, without a gradient."""
        kernels = [tf.stop_gradient(tf.convert_to_tensor(x.kernel)) for x in self._layers]
        float_bias = tf.concat([tf.stop_gradient(x.bias) for x in self._layers], 0)
        peak = tf.concat([tf.reduce_max(tf.abs(k), all_but_last(k)) for k in kernels], 0)
        proportional = peak * self._range_share
        kernel_scale = tf.maximum(proportional, SMALLEST_SCALE)
        scale = kernel_scale * self._input_scale
        pooled_scale = scale / self._positions

        scale_bits = SCALE_BITS - exponent(pooled_scale)
        integer_scale = tf.round(pooled_scale * tf.pow(2.0, scale_bits))
        integer_scale = tf.minimum(integer_scale, 2.0**SCALE_BITS - 1)
        step = tf.pow(2.0, self._input_bits + scale_bits - self._output_bits) / integer_scale
        threshold = tf.where(self._activated, tf.round(step / 2.0), 0.0)
        bias, bias_error = self._aligned(float_bias, scale, 7)
        bound, bound_error = self._aligned(CLIPPED_ABOVE, pooled_scale, 8)
        # A bound of 0, of weights beyond all measure, silences the channel.
        sixteenths = tf.where(bound > 0.0, tf.floor(step * STEP_FRACTION), np.inf)
        mask_scale = RELU6_BOUND / (bound + 1.0)
        units = Units(
            kernel_scale=kernel_scale,
            peak=peak,
            peak_share=tf.where(proportional >= SMALLEST_SCALE, self._range_share, 0.0),
            bias=bias * self._positions,
            offset=bias * self._positions - threshold,
            slope=chip_slopes(sixteenths),
            sixteenths=sixteenths,
            gain=tf.where(self._activated, 1.0 / step, scale),
            mask_scale=mask_scale,
            mask_offset=mask_scale * (threshold + 0.5),
            bias_gain=self._positions * tf.pow(2.0, self._input_bits) / scale,
            bias_rounding=self._positions * bias_error / kernel_scale,
            bound_rounding=bound_error / kernel_scale,
        )
        parts = tf.split(tf.stack(units), self._channels, axis=1)
        return [Units(*tf.unstack(part)) for part in parts]

    def _aligned(
        self, values: tf.Tensor | float, scale: tf.Tensor, bits: int
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """``values`` in accumulator units, of so many bits and a shift; what rounding added."""
        ratio = values / scale
        kept = tf.minimum(bits - exponent(tf.abs(ratio)), self._input_bits)
        rounded = tf.round(ratio * tf.pow(2.0, kept))
        rounded = tf.clip_by_value(rounded, -(2.0**bits), 2.0**bits - 1)
        rounded = rounded * tf.pow(2.0, self._input_bits - kept)
        return rounded, rounded - ratio * tf.pow(2.0, self._input_bits)


def chip_slopes(sixteenths: tf.Tensor) -> tf.Tensor:
    """Slopes with which ceil(slope w) are the chip's levels, ceil(16 w / A), of integers w.

    For steps A of up to 2^18 sixteenths and levels of up to 15: where 16 w / A is above an integer
    it is so by 1 / A at least, and then the float32 product is above it too. `SMALLEST_SCALE` keeps
    all steps below that, but for those after pooling.
    """
    return tf.minimum(STEP_FRACTION * SLOPE_BELOW / sixteenths, STEEPEST)


def all_but_last(x: tf.Tensor) -> list[int]:
    """All axes of a tensor but its channels."""
    return list(range(len(x.shape) - 1))
