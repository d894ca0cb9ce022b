"""The quantized Keras model and the Akida program compute the same integers, layer by layer."""

import akida
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.keras_setup import keras, tf
from common.qana.chip_arithmetic import SMALLEST_SCALE, chip_levels
from common.qana.config import QanaConfig
from common.qana.convert import convert, keras_spikes_and_logits
from common.qana.networks import network
from common.qana.quantize import ACTIVATION_RANGE, chain_names
from common.qana.weights import NamedWeights
from tests.qana.tiny import BARE, LACKING, TINY, quantized_from, random_images, random_weights

DEEPER = QanaConfig(input_size=32, stem=16, widths=(8, 16), depth=2, transform=24, spikes=40)
CLASSES = 5


def random_quantized(config: QanaConfig, seed: int, spread: float) -> NamedWeights:
    """Kernels and biases drawn anew for every channel, of scales that differ by e^spread.

    Some channels vanish altogether, as pruned ones do.
    """
    rng = np.random.default_rng(seed)
    weights: NamedWeights = {}
    for name, value in network("qat", config, CLASSES).weights().items():
        channels = value.shape[-1]
        if name.endswith("/kernel"):
            fan_in = float(np.prod(value.shape[:-1]))
            scale = np.exp(rng.normal(scale=spread, size=channels)) * np.sqrt(2 / fan_in)
            scale *= rng.random(channels) > 0.1
            drawn = rng.normal(size=value.shape) * scale
        else:
            drawn = rng.normal(size=channels) * np.exp(rng.normal(scale=spread, size=channels))
        weights[name] = drawn.clip(-20, 20).astype(np.float32)
    return weights


def probe(config: QanaConfig) -> keras.Model:
    model = network("qat", config, CLASSES).model
    outputs = [model.get_layer(f"{name}_relu").output for name in chain_names(config)[:-1]]
    return keras.Model(model.input, outputs)


def keras_levels(
    config: QanaConfig, weights: NamedWeights, images: NDArray[np.uint8]
) -> dict[str, NDArray[np.int64]]:
    """Integer outputs of every layer before the head."""
    network("qat", config, CLASSES).set_weights(weights)
    outputs = probe(config)(tf.constant(images), training=False)
    names = chain_names(config)[:-1]
    return {
        name: np.asarray(output.values.numpy(), np.int64)
        for name, output in zip(names, outputs, strict=True)
    }


def chip_outputs(program_model: akida.Model, images: NDArray[np.uint8]) -> dict[str, NDArray]:
    """The same of an Akida model, last layer first."""
    model = akida.Model(layers=program_model.layers)
    outputs = {}
    while model.layer_count > 1:
        model.pop_layer()
        outputs[model.layers[-1].name] = np.asarray(model.forward(images), np.int64)
    return outputs


@pytest.mark.parametrize("config", [TINY, DEEPER, BARE, *LACKING])
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([0.0, 0.5, 1.5, 4.0]))
def test_every_layer_is_equal(config: QanaConfig, seed: int, spread: float) -> None:
    weights = random_quantized(config, seed, spread)
    images = random_images(12, seed % 1000)
    program = convert(weights, config, CLASSES)
    expected = keras_levels(config, weights, images)
    found = chip_outputs(program.model, images)
    for name, levels in expected.items():
        np.testing.assert_array_equal(found[name].reshape(levels.shape), levels, err_msg=name)
    spikes, logits = keras_spikes_and_logits(weights, config, CLASSES, images)
    np.testing.assert_array_equal(program.spikes(images), spikes)
    np.testing.assert_allclose(program.predict_potentials(images), logits, rtol=1e-5, atol=1e-5)
    assert any(0 < level.mean() < 15 for level in expected.values())  # not all silent


@pytest.mark.parametrize("seed", range(3))
def test_a_folded_network_is_equal(seed: int) -> None:
    weights = quantized_from(random_weights(DEEPER, CLASSES, seed), DEEPER, CLASSES)
    images = random_images(200, seed)
    program = convert(weights, DEEPER, CLASSES)
    spikes, logits = keras_spikes_and_logits(weights, DEEPER, CLASSES, images)
    assert 0.02 < spikes.mean() < 0.98
    np.testing.assert_array_equal(program.spikes(images), spikes)
    np.testing.assert_array_equal(
        program.predict_potentials(images).argmax(axis=1), logits.argmax(axis=1)
    )


def test_quantizemls_own_rounding_is_another() -> None:
    """What the chip's arithmetic is there for: rounding to nearest differs at some edges."""
    accumulators = tf.range(0.0, 70.0)
    step = tf.constant(4.34)
    nearest = tf.floor(accumulators / step + 0.5)
    levels = chip_levels(accumulators, step)
    differing = np.flatnonzero((nearest != levels).numpy())
    assert 54 in differing and len(differing) < 20
    assert (np.abs((nearest - levels).numpy()) <= 1).all()


def test_the_gradient_passes_through_the_rounding() -> None:
    accumulators = tf.constant([1.0, 17.0, 40.0])
    step = tf.constant(4.0)
    with tf.GradientTape() as tape:
        tape.watch(accumulators)
        levels = chip_levels(accumulators, step)
    np.testing.assert_array_equal(tape.gradient(levels, accumulators), [0.25] * 3)
    assert (levels.numpy() == np.round(levels.numpy())).all()


def test_a_channel_below_all_thresholds_stays_silent() -> None:
    """cnn2snn cuts its threshold off at 2^19, which no accumulator reaches."""
    weights = random_quantized(TINY, 2, 0.0)
    weights["s0b0_features/bias"][0] = -(2.0**14)
    weights["s0b0_features/kernel"][..., 0] *= np.float32(1e-3)
    images = random_images(4, 5)
    program = convert(weights, TINY, CLASSES)
    found = chip_outputs(program.model, images)["s0b0_features"]
    levels = keras_levels(TINY, weights, images)["s0b0_features"]
    np.testing.assert_array_equal(found, levels)
    assert not levels[..., 0].any() and levels.any()


def test_a_vanishing_kernel_is_zero_on_both_sides() -> None:
    weights = random_quantized(TINY, 1, 0.0)
    name = "s0b0_features/kernel"
    weights[name] = np.full_like(weights[name], 1e-7)
    weights["s0b0_features/bias"] = np.linspace(-4, 4, weights[name].shape[-1]).astype(np.float32)
    images = random_images(4, 5)
    program = convert(weights, TINY, CLASSES)
    found = chip_outputs(program.model, images)["s0b0_features"]
    levels = keras_levels(TINY, weights, images)["s0b0_features"]
    np.testing.assert_array_equal(found, levels)
    wanted = weights["s0b0_features/bias"].clip(0, ACTIVATION_RANGE) / 0.25
    assert (np.abs(levels - wanted) <= 0.5 + 1 / 16).all()
    assert SMALLEST_SCALE > 1e-7
