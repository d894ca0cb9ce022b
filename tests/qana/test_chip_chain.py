"""The chain's own forward pass and the quantized Keras model: equal integers, equal gradients."""

import functools
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from common.keras_setup import keras, tf
from common.qana.chip_arithmetic import exponent
from common.qana.chip_chain import Outputs
from common.qana.chip_units import ChainUnits, chain_layers, chip_slopes
from common.qana.config import DEMO_CONFIG, QanaConfig
from common.qana.convert import convert
from common.qana.networks import Network, network
from common.qana.quantize import ACTIVATION_STEP, chain_names
from common.qana.weights import Float, NamedWeights
from tests.qana.tiny import BARE, TINY, quantized_from, random_images, random_weights

# Pooled over 9 positions, by which no division is exact; blocks of stride 1 and 2.
ODD = QanaConfig(
    input_size=48, stem=8, widths=(8, 12, 20), strides=(2, 2, 2), transform=24, spikes=40
)
CLASSES = {QanaConfig(): 7, DEMO_CONFIG: 5, ODD: 9, TINY: 3, BARE: 3}


@functools.cache  # not `network`'s own, which forgets: models and what is made of them go together
def net_of(config: QanaConfig) -> Network:
    return network("qat", config, CLASSES[config])


def random_quantized(net: Network, seed: int, spread: float, size: float = 1.0) -> NamedWeights:
    """Kernels and biases whose channels' scales differ by e^spread; one in ten vanishes."""
    rng = np.random.default_rng(seed)
    weights: NamedWeights = {}
    for name, value in net.weights().items():
        scale = size * np.exp(rng.normal(scale=spread, size=value.shape[-1]))
        if name.endswith("/kernel"):
            scale *= np.sqrt(2 / np.prod(value.shape[:-1])) * (rng.random(len(scale)) > 0.1)
        weights[name] = (rng.normal(size=value.shape) * scale).astype(np.float32)
    return weights


@functools.cache
def keras_probe(config: QanaConfig) -> keras.Model:
    """Logits, then the activations of all layers, of the quantized Keras model."""
    model = net_of(config).model
    layers = [model.get_layer(f"{name}_relu").output for name in chain_names(config)[:-1]]
    return keras.Model(model.input, [model.output, *layers])


@functools.cache
def chain(config: QanaConfig) -> Callable[[tf.Tensor], Outputs]:
    images = tf.TensorSpec([None, config.input_size, config.input_size, 3], tf.uint8)
    compiled: Callable[[tf.Tensor], Outputs] = tf.function(
        net_of(config).with_activations, input_signature=[images]
    )
    return compiled


def assert_equal(config: QanaConfig, images: NDArray[np.uint8]) -> None:
    """In every level, spike and logit, at several batch sizes.

    The Keras model runs eagerly, as it does in a conversion.
    """
    logits, *expected, spikes = keras_probe(config)(tf.constant(images), training=False)
    spikes = spikes.values.numpy()[:, 0, 0]
    for n in sorted({1, 7, len(images)}):
        found = chain(config)(tf.constant(images[:n]))
        for name, one, other in zip(
            chain_names(config)[:-2], found.activations, expected, strict=True
        ):
            levels = one.numpy() / ACTIVATION_STEP
            np.testing.assert_array_equal(levels, other.values[:n].numpy(), err_msg=name)
        np.testing.assert_array_equal(found.spikes, spikes[:n])
        assert found.logits.numpy().tobytes() == logits[:n].numpy().tobytes()


@pytest.mark.parametrize("config", CLASSES, ids=["default", "demo", "odd", "tiny", "bare"])
def test_random_networks_compute_the_same(config: QanaConfig) -> None:
    net = net_of(config)
    net.set_weights(random_quantized(net, 1, 0.5))
    images = random_images(64, 1, config.input_size)
    assert_equal(config, images)
    spikes, logits = net.spikes_and_logits(images)
    found = chain(config)(tf.constant(images))
    np.testing.assert_array_equal(spikes, found.spikes)
    assert logits.tobytes() == net.logits(images).tobytes() == found.logits.numpy().tobytes()
    assert 0.02 < spikes.mean() < 0.98


@pytest.mark.parametrize("size", [1e-4, 0.1, 30.0, 1e4])
def test_weights_of_any_size_compute_the_same(size: float) -> None:
    """From kernels that vanish to steps that a chip does not have."""
    net_of(ODD).set_weights(random_quantized(net_of(ODD), 3, 2.0, size))
    assert_equal(ODD, random_images(16, 3, ODD.input_size))


def test_rounding_edges_give_the_programs_thresholds_and_steps() -> None:
    """Edges of scales and biases, where the last bit of a float decides between two integers.

    Just above a power of two it is that of a logarithm; for the layer that is pooled, halfway
    between two integers after the division by 9 positions, that of the quotient.
    """
    rng = np.random.default_rng(0)
    weights: NamedWeights = {}
    for name, value in net_of(ODD).weights().items():
        channels = value.shape[-1]
        powers = 2.0 ** rng.integers(-6, 2, channels) * (1 + rng.integers(0, 4, channels) * 2**-23)
        if name == "transform/kernel":
            powers = 9 * (rng.integers(128, 255, channels) + 0.5) * 2.0**-14
        signs = rng.choice([-1, 1], channels)
        drawn = np.asarray(rng.integers(-7, 8, value.shape))
        if value.ndim > 1:
            drawn[0] = 7 * signs
        else:
            drawn = signs
        weights[name] = (powers * drawn).astype(np.float32)
    model = net_of(ODD).model
    net_of(ODD).set_weights(weights)
    units = tf.function(ChainUnits(chain_layers(model)))()
    program = convert(weights, ODD, CLASSES[ODD])
    chip = {layer.name: layer for layer in program.model.layers}
    for name, found in zip(chain_names(ODD)[:-1], units[:-1], strict=True):
        variables, bits = chip[name].variables, chip[name].parameters.act_bits
        np.testing.assert_array_equal(variables["threshold"], -found.offset.numpy(), err_msg=name)
        sixteenths = np.floor(variables["act_step"] * 2.0 ** (4 - bits) * 16)
        np.testing.assert_array_equal(sixteenths, found.sixteenths.numpy(), err_msg=name)
    assert_equal(ODD, random_images(16, 0, ODD.input_size))


def gradients(config: QanaConfig) -> tuple[list[Float], list[Float]]:
    """Of the Keras model and of the chain, of a loss of logits, spikes and all activations."""
    images = tf.constant(random_images(24, 5, config.input_size))
    rng = np.random.default_rng(6)
    labels = tf.constant(rng.integers(0, CLASSES[config], 24))
    variables = net_of(config).model.trainable_variables

    def loss(logits: tf.Tensor, spikes: tf.Tensor, activations: list[tf.Tensor]) -> tf.Tensor:
        each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        levels = tf.add_n([tf.reduce_mean(a) for a in activations])
        return tf.reduce_mean(each) + 0.3 * tf.reduce_mean(spikes**2 - spikes) + 0.1 * levels

    with tf.GradientTape() as tape:
        logits, *activations, spikes = keras_probe(config)(images, training=True)
        value = loss(logits, spikes.to_float(), [a.to_float() for a in activations])
    expected = tape.gradient(value, variables)
    with tf.GradientTape() as tape:
        value = loss(*chain(config)(images))
    return [g.numpy() for g in expected], [g.numpy() for g in tape.gradient(value, variables)]


@pytest.mark.parametrize(
    "config", [DEMO_CONFIG, ODD, TINY, BARE], ids=["demo", "odd", "tiny", "bare"]
)
def test_gradients_are_the_same(config: QanaConfig) -> None:
    """Up to rounding: sums of thousands of float32 terms, in another order."""
    net = net_of(config)
    net.set_weights(random_quantized(net, 4, 0.5))
    expected, found = gradients(config)
    for name, one, other in zip(net.weights(), expected, found, strict=True):
        assert np.linalg.norm(one) > 0, name
        assert np.linalg.norm(one - other) < 1e-4 * np.linalg.norm(one), name


def test_a_trained_network_computes_the_same_and_has_the_same_gradients() -> None:
    net = net_of(DEMO_CONFIG)
    net.set_weights(quantized_from(random_weights(DEMO_CONFIG, 5, 0), DEMO_CONFIG, 5))
    images, labels = random_images(32, 7, DEMO_CONFIG.input_size), tf.range(32) % 5
    variables = net.model.trainable_variables
    optimizer = keras.optimizers.Adam(2e-3)
    optimizer.build(variables)

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = net.forward(tf.constant(images), training=True)
            each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            value = tf.reduce_mean(each)
        optimizer.apply_gradients(zip(tape.gradient(value, variables), variables, strict=True))
        return value

    values = [float(step()) for _ in range(25)]
    assert values[-1] < 0.7 * values[0]
    assert_equal(DEMO_CONFIG, random_images(16, 8, DEMO_CONFIG.input_size))
    expected, found = gradients(DEMO_CONFIG)
    for name, one, other in zip(net.weights(), expected, found, strict=True):
        assert np.linalg.norm(one - other) < 1e-4 * np.linalg.norm(one), name


def test_slopes_give_the_chips_levels_at_every_edge() -> None:
    """For all steps there are, the last accumulator of a level and the first of the next."""
    steps = np.arange(1, 2**18 + 1)
    slopes = chip_slopes(tf.constant(steps, tf.float32)).numpy()
    for level in range(16):
        last = steps * level // 16
        for accumulators in (last, last + 1):
            found = np.ceil(np.float32(accumulators) * slopes)
            expected = -(-16 * accumulators // steps)
            np.testing.assert_array_equal(np.minimum(found, 16), np.minimum(expected, 16))


def test_exponents_are_exact_and_have_the_logarithms_gradient() -> None:
    powers = np.float32(2.0) ** np.arange(-126, 127).astype(np.float32)
    exact = np.arange(-126, 127)
    np.testing.assert_array_equal(exponent(tf.constant(powers)), exact)
    above = np.nextafter(powers, np.float32(np.inf))
    np.testing.assert_array_equal(exponent(tf.constant(above)), exact + 1)
    values = tf.constant([0.3, 1.0, 5.0])
    with tf.GradientTape() as tape:
        tape.watch(values)
        found = exponent(values)
    np.testing.assert_allclose(tape.gradient(found, values), 1 / (values * np.log(2)), rtol=1e-6)
