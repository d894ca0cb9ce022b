"""The chip's own rounding inside the quantized Keras model: what makes a conversion lose nothing.

quantizeml rounds to nearest: an accumulator x (an integer, bias included) becomes the level

    y = floor(x / a + 1/2),    clipped to 0 .. 15,

where a, the activation step in accumulator units, is 2^k / S of an integer scale S. Akida
version 1 has two integers per channel instead, a threshold t and a step A in sixteenths:

    t = round(a / 2),  A = floor(16 a),    y = ceil(16 (x - t) / A),    clipped to 0 .. 15.

The formula was read off akida 2.19.3, input by input, for InputConvolutional, Convolutional and
FullyConnected layers (tests/akida_runtime/test_output_stage.py does it again). t is what cnn2snn
makes of the half step (``set_output_v1_variables``); that the step is cut off at four fractional
bits is what Akida does with the float it is given. A 1-bit output is y = 1 where x > t, which the
same formula gives with a clip at 1.

Both differences move bin edges by less than an accumulator unit each, but a is only 3 to 7 with
4-bit weights. Example, a = 4.34: the edge between the levels 12 and 13 is at x / a + 1/2 = 13, so
x = 55 is the first of level 13; on the chip t = 2 and A = 69, x = 54 is the first with
16 (x - 2) / 69 > 12. So one value of x in 4.34 gets another level, at that edge and at others.

Nothing can be repaired after conversion: 15 edges that follow a real step do not in general
follow any integer threshold and any step in sixteenths. So the model is taught the chip's
arithmetic: `ChipRounding` computes y as the chip does, quantization-aware training sees it in every
forward pass, and the converted program equals the model spike for spike and logit for logit. The
gradient is that of quantizeml, straight through (arXiv 1308.3432).

One more thing would differ: a channel whose kernel vanishes has a scale near 0 and a step beyond
the 65,535 that a chip can hold; cnn2snn then changes the next layer's weights. `ChipWeights` stops
at a smallest scale instead, below which a kernel is zero on both sides.

And what is a power of two is read off the float's bits (`exponent`): quantizeml takes logarithms,
whose last bit is one in a graph and another in the eager mode of a conversion, and so now and then
the integer above.
"""

import math
from collections.abc import Callable
from typing import Any

from quantizeml.layers import OutputQuantizer, WeightQuantizer
from quantizeml.layers.quantizers import AlignedWeightQuantizer
from quantizeml.layers.recorders import FixedPointRecorder
from quantizeml.tensors import FixedPoint, QFloat, pow2

from common.keras_setup import keras, tf

STEP_FRACTION = 16.0
"""Akida version 1 keeps activation steps in sixteenths, cut off."""


SMALLEST_SCALE = 1.0 / 255.0
"""Of a kernel's integer weights. A pooled layer of 256 positions, the most that cnn2snn converts,
then has a step of 255 x 256 = 65,280 at most."""


@keras.saving.register_keras_serializable(package="fedqana")
class ChipWeights(WeightQuantizer):
    """A quantizeml weight quantizer with scales per channel of at least `SMALLEST_SCALE`."""

    def call(self, inputs: Any) -> Any:
        """Integer weights and their scales, a `QFloat`, of a float kernel."""
        ranges = tf.math.reduce_max(tf.math.abs(inputs), self._axis)
        # Multiplied, as TensorFlow turns a division by a constant into a multiplication in graphs
        # but not in the eager mode of a conversion: the last bit of a scale decides some steps.
        scales = tf.maximum(ranges * (1.0 / (2**self.value_bits - 1)), SMALLEST_SCALE)
        weights = QFloat.quantize(inputs, self.value_bits, scales, 0.0)
        self.qweights(weights)
        return weights


@keras.saving.register_keras_serializable(package="fedqana")
class ChipAligned(AlignedWeightQuantizer):
    """quantizeml's quantizer of biases and bounds, with exact powers of two.

    For at most one dimension, each value with a power of its own.
    """

    def call(self, inputs: Any, other: Any) -> Any:
        """Integers on the scales and fractional bits of ``other``, a `QFloat`."""
        size = exponent(tf.abs(inputs) / other.scales)
        frac_bits = tf.minimum(tf.stop_gradient(self.value_bits - size), other.fp.frac_bits)
        values = QFloat.quantize(inputs, self.value_bits, other.scales, frac_bits)
        values, shift = values.upscale(other.fp.frac_bits, other.fp.value_bits)
        self.qweights(values)
        self.shift(shift)
        return values


@keras.saving.register_keras_serializable(package="fedqana")
class ChipRounding(OutputQuantizer):
    """A quantizeml output quantizer that rounds as an Akida version 1 chip does.

    For activations whose inputs are accumulators with a scale per channel, which is all that a
    version 1 chain has.
    """

    def call(self, inputs: Any) -> Any:
        """Levels, a `FixedPoint`, of accumulators, a `QFloat`."""
        if not isinstance(inputs, QFloat):
            raise TypeError(f"{self.name} rounds accumulators with scales, not {type(inputs)}")
        scales = inputs.scales * self.rescaling_rate
        scales = FixedPoint.quantize(scales, self.scale_bits, self.scale_bits - exponent(scales))
        self._record_scales(scales)
        frac_bits = self.frac_bits
        shift = frac_bits - (inputs.fp.frac_bits + scales.frac_bits)
        self.shift(shift)
        levels = chip_levels(inputs.fp.values, pow2(-shift) / scales.values)
        return FixedPoint(levels, self.value_bits, frac_bits)

    def _record_scales(self, scales: Any) -> None:
        """Keep the integer scales where the conversion looks for them."""
        if getattr(self, "qscales", None) is None:
            with tf.init_scope():
                self.qscales = FixedPointRecorder(self.name + "/qscales")
        self.qscales(scales)


@tf.custom_gradient
def exponent(values: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """Exponents of the smallest powers of two not below ``values``, with the logarithm's gradient.

    Float32 of any shape, not negative; of 0 it is -127, and no other value has less than -126.
    """
    bits = tf.bitcast(values, tf.int32)
    above = tf.cast(tf.bitwise.bitwise_and(bits, 0x7FFFFF) != 0, tf.int32)
    found = tf.cast(tf.bitwise.right_shift(bits, 23) - 127 + above, tf.float32)
    return found, lambda upstream: upstream / (values * math.log(2.0))


def chip_levels(accumulators: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    """Activation levels, not yet clipped at the highest, with a straight-through gradient.

    Parameters
    ----------
    accumulators : float32 tensor, shape (..., channels)
        Integers, of magnitude below 2^20 wherever the level is not clipped.
    step : float32 tensor, shape (channels,) or ()
        Activation step in accumulator units, at least 1/16.
    """
    threshold = tf.round(step / 2.0)
    sixteenths = tf.floor(step * STEP_FRACTION)
    # Half a unit below the integer numerator: the same ceiling, and no rounding of the division
    # can carry it over an integer.
    exact = tf.math.ceil((STEP_FRACTION * (accumulators - threshold) - 0.5) / sixteenths)
    smooth = accumulators / step
    return tf.maximum(tf.stop_gradient(exact), 0.0) + (smooth - tf.stop_gradient(smooth))


def compute_as_chip(model: keras.Model) -> None:
    """Give all quantizers of a quantized model the chip's arithmetic, in place.

    quantizeml's configuration names no classes, so the quantizers that it built, with their
    variables and records, become instances of these subclasses, which add no state.
    """
    for layer in model.layers:
        if getattr(layer, "out_quantizer", None) is not None:
            layer.out_quantizer.__class__ = ChipRounding
        if getattr(layer, "weight_quantizer", None) is not None:
            layer.weight_quantizer.__class__ = ChipWeights
        for aligned in ("bias_quantizer", "max_value_quantizer"):
            if getattr(layer, aligned, None) is not None:
                getattr(layer, aligned).__class__ = ChipAligned
