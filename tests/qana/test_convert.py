import contextlib
import functools
import io
import warnings

import numpy as np
import pytest

from common.akida_runtime import DEVICES, Program
from common.errors import ConversionRefused, ModelDoesNotFit
from common.keras_setup import keras
from common.qana.config import WHOLE_CONFIG, QanaConfig
from common.qana.convert import agreement, convert, convert_model
from common.qana.networks import initial_weights, network
from common.qana.quantize import chain_names
from tests.qana.tiny import (
    CLASSES,
    TINY,
    quantized_from,
    random_weights,
    tiny_weights,
)

layers = keras.layers


def small_quantized(tail: list[keras.layers.Layer]) -> keras.Model:
    """A quantized Sequential of a stem and ``tail``, as quantizeml makes it without complaint."""
    from quantizeml.layers import QuantizationParams
    from quantizeml.models import quantize

    model = keras.Sequential(
        [
            keras.Input((8, 8, 3), dtype="uint8"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 3, padding="same", name="stem"),
            layers.ReLU(6.0, name="stem_relu"),
            *tail,
        ]
    )
    parameters = QuantizationParams(
        input_dtype="uint8",
        input_weight_bits=8,
        weight_bits=4,
        activation_bits=4,
        per_tensor_activations=True,
    )
    samples = np.zeros((1, 8, 8, 3), np.uint8)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return quantize(model, qparams=parameters, samples=samples, num_samples=1, batch_size=1)


def test_the_program_is_the_chain() -> None:
    _, _, program = tiny_weights()
    assert list(program.layer_names) == chain_names(TINY)
    assert program.input_shape == (32, 32, 3)
    assert program.output_shape == (1, 1, CLASSES)
    assert program.n_spikes == TINY.spikes


@pytest.mark.parametrize("device", DEVICES)
def test_the_program_fits_in_one_pass(device: str) -> None:
    report = tiny_weights()[2].require_fit(device)
    assert report.fits and report.passes == 1 and report.sequences == 1


def test_equal_weights_give_equal_bytes() -> None:
    _, quantized, program = tiny_weights()
    convert(quantized_from(random_weights(TINY, CLASSES, 1), TINY, CLASSES), TINY, CLASSES)
    assert convert(quantized, TINY, CLASSES).to_bytes() == program.to_bytes()


def test_agreement_counts() -> None:
    spikes = np.array([[0, 1], [1, 1]], np.uint8)
    logits = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    assert agreement(spikes, logits, spikes, logits).to_json() == {
        "images": 2,
        "equal_predictions": 2,
        "spikes": 4,
        "equal_spikes": 4,
    }
    other = agreement(spikes, logits, spikes ^ np.uint8(1), logits[::-1])
    assert other.equal_predictions == 0 and other.equal_spikes == 0


def test_a_truncated_conversion_is_refused() -> None:
    """quantizeml and cnn2snn stop at the tanh with a warning and return the part before."""
    model = small_quantized(
        [
            layers.Flatten(),
            layers.Dense(3, name="hidden"),
            layers.Activation("tanh", name="tanh"),
            layers.Dense(3, name="head"),
        ]
    )
    with warnings.catch_warnings(), pytest.raises(ConversionRefused, match="'head'"):
        warnings.simplefilter("ignore")
        convert_model(model, ["stem", "hidden", "head"], 3)


def test_layers_that_version_1_lacks_are_refused() -> None:
    model = small_quantized(
        [
            layers.DepthwiseConv2D(3, padding="same", name="depthwise"),
            layers.ReLU(6.0, name="depthwise_relu"),
            layers.Flatten(),
            layers.Dense(3, name="head"),
        ]
    )
    with warnings.catch_warnings(), pytest.raises(ConversionRefused) as refusal:
        warnings.simplefilter("ignore")
        convert_model(model, ["stem", "depthwise", "head"], 3)
    assert "\n" not in str(refusal.value)


def test_another_output_shape_is_refused() -> None:
    network("qat", TINY, CLASSES).set_weights(tiny_weights()[1])
    model = network("qat", TINY, CLASSES).model
    with pytest.raises(ConversionRefused, match=r"\(1, 1, 4\)"):
        convert_model(model, chain_names(TINY), CLASSES + 1)


@functools.cache
def program_of(config: QanaConfig) -> Program:
    """An untrained network of seven classes: the fit depends on shapes only."""
    return convert(quantized_from(initial_weights(config, 7, 0), config, 7), config, 7)


@pytest.mark.parametrize(
    ("config", "layers", "device", "nps"),
    [
        (QanaConfig(), 8, "AKD1000", 76),
        (QanaConfig(), 8, "AKD1500", 32),
        (WHOLE_CONFIG, 13, "AKD1000", 76),
        (WHOLE_CONFIG, 13, "AKD1500", 30),
    ],
)
def test_the_default_network_fits_both_chips_and_so_does_the_whole_one(
    config: QanaConfig, layers: int, device: str, nps: int
) -> None:
    report = program_of(config).require_fit(device)
    assert (report.layers, report.sequences, report.passes) == (layers, 1, 1)
    assert report.nps == nps


def test_a_network_that_is_too_wide_names_the_layer() -> None:
    wide = TINY.model_copy(update={"transform": 1024, "spikes": 1024})
    program = convert(quantized_from(initial_weights(wide, 2, 0), wide, 2), wide, 2)
    refusals = []
    for device in DEVICES:
        try:
            program.require_fit(device)
        except ModelDoesNotFit as error:
            refusals.append(str(error))
    assert refusals and all("transform" in r or "excite" in r or "spikes" in r for r in refusals)
