"""What Akida version 1 computes from an accumulator, read off input by input.

`common.qana.chip_arithmetic` relies on it: an akida version that computes otherwise fails here.
"""

from typing import Any

import akida
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

ACCUMULATORS = np.arange(500)


def _digits(values: NDArray[np.int64], largest: int, places: int) -> NDArray[np.uint8]:
    """Each value as ``places`` inputs of at most ``largest`` that sum to it, (n, places)."""
    filled = np.clip(values[:, None] - largest * np.arange(places), 0, largest)
    return np.asarray(filled, np.uint8)


def _outputs(kind: str, threshold: int, step: float, bits: int) -> NDArray[np.uint8]:
    """Outputs of a layer whose accumulators are `ACCUMULATORS`."""
    common: dict[str, Any] = {"activation": True, "act_bits": bits, "name": "layer"}
    model = akida.Model()
    if kind == "input":
        inputs = np.zeros((len(ACCUMULATORS), 8, 8, 3), np.uint8)
        inputs[:, 4, 4] = _digits(ACCUMULATORS, 255, 3)
        layer = akida.InputConvolutional(
            input_shape=(8, 8, 3),
            kernel_size=(3, 3),
            filters=1,
            padding=akida.Padding.Same,
            weights_bits=8,
            **common,
        )
    else:
        inputs = _digits(ACCUMULATORS, 15, 64)[:, None, None, :]
        model.add(akida.InputData(input_shape=(1, 1, 64), input_bits=4))
        layer = (
            akida.Convolutional(
                kernel_size=(1, 1), filters=1, padding=akida.Padding.Same, weights_bits=4, **common
            )
            if kind == "convolution"
            else akida.FullyConnected(units=1, weights_bits=4, **common)
        )
    model.add(layer)
    weights = np.zeros_like(layer.variables["weights"])
    middle = weights.shape[0] // 2
    weights[middle, middle] = 1
    layer.variables["weights"] = weights
    layer.variables["threshold"] = np.array([threshold], np.int32)
    layer.variables["act_step"] = np.array([step], np.float32)
    found = model.forward(inputs)
    return np.asarray(found[:, 4, 4] if kind == "input" else found).reshape(-1)


@pytest.mark.parametrize("kind", ["input", "convolution", "dense"])
@settings(max_examples=60, deadline=None)
@given(threshold=st.integers(-60, 200), step=st.floats(0.0625, 40.0, width=32))
def test_four_bits_are_a_ceiling_of_sixteenths(kind: str, threshold: int, step: float) -> None:
    sixteenths = int(np.floor(step * 16))
    above = ACCUMULATORS - threshold
    expected = np.clip(-((-16 * above) // sixteenths), 0, 15)
    np.testing.assert_array_equal(_outputs(kind, threshold, step, 4), expected)


@pytest.mark.parametrize("kind", ["input", "convolution", "dense"])
@settings(max_examples=30, deadline=None)
@given(threshold=st.integers(-60, 200), step=st.floats(0.0625, 40.0, width=32))
def test_one_bit_is_whether_the_threshold_is_exceeded(
    kind: str, threshold: int, step: float
) -> None:
    np.testing.assert_array_equal(_outputs(kind, threshold, step, 1), threshold < ACCUMULATORS)
