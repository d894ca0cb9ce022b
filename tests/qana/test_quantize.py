import numpy as np
import pytest

from common.keras_setup import keras
from common.qana.convert import keras_spikes_and_logits
from common.qana.fold import fold
from common.qana.networks import network
from common.qana.quantize import chain_names, quantizable_weights, trainable_names
from common.qana.weights import grow_head
from tests.qana.tiny import CLASSES, TINY, quantized_from, random_images, random_weights

IMAGES = random_images(24, seed=3)


@pytest.fixture(scope="module")
def quantized() -> keras.Model:
    """The tiny quantized model with random weights."""
    net = network("qat", TINY, CLASSES)
    net.set_weights(quantized_from(random_weights(TINY, CLASSES, 0), TINY, CLASSES))
    return net.model


def test_activations_are_steps_of_a_quarter_and_spikes_are_bits(quantized: keras.Model) -> None:
    names = [f"{name}_relu" for name in chain_names(TINY)[:-1]]
    probe = keras.Model(quantized.input, [quantized.get_layer(n).output for n in names])
    outputs = dict(zip(names, probe(IMAGES, training=False), strict=True))
    spikes = outputs.pop("spikes_relu").to_float().numpy()
    assert set(np.unique(spikes)) == {0.0, 1.0}
    for name, output in outputs.items():
        levels = np.unique(output.to_float().numpy())
        assert set(levels) <= set(np.arange(16) * 0.25), name
        assert len(levels) > 4, f"{name} is as good as silent"


def test_weights_have_four_bits_and_the_stems_eight(quantized: keras.Model) -> None:
    for name in chain_names(TINY):
        layer = quantized.get_layer(name)
        values = layer.weight_quantizer(layer.kernel).fp.values.numpy()
        limit = 128 if name == "stem" else 8
        assert np.array_equal(values, np.round(values))
        assert -limit <= values.min() and values.max() < limit
        assert np.abs(values).max() > limit / 2, f"{name} does not use its bits"
        for channel in np.moveaxis(values, -1, 0):
            assert len(np.unique(channel)) <= 2 * limit


def test_only_kernels_and_biases_travel(quantized: keras.Model) -> None:
    weights = network("qat", TINY, CLASSES).weights()
    assert list(weights) == trainable_names(TINY)
    made = quantized_from(random_weights(TINY, CLASSES, 1), TINY, CLASSES)
    assert {n: w.shape for n, w in made.items()} == {n: w.shape for n, w in weights.items()}


def test_setting_weights_leaves_nothing_of_the_former(quantized: keras.Model) -> None:
    """One model serves all sites and rounds: its results depend on the weights given only."""
    first = quantized_from(random_weights(TINY, CLASSES, 0), TINY, CLASSES)
    second = quantized_from(random_weights(TINY, CLASSES, 1), TINY, CLASSES)
    before = keras_spikes_and_logits(first, TINY, CLASSES, IMAGES)
    other = keras_spikes_and_logits(second, TINY, CLASSES, IMAGES)
    after = keras_spikes_and_logits(first, TINY, CLASSES, IMAGES)
    assert np.array_equal(before[0], after[0]) and np.array_equal(before[1], after[1])
    assert not np.array_equal(before[1], other[1])


def test_many_shapes_in_one_process_are_no_trouble() -> None:
    """A class that is registered changes the shape; older models go, and nothing of them stays."""
    first = quantized_from(random_weights(TINY, CLASSES, 0), TINY, CLASSES)
    second = quantized_from(random_weights(TINY, CLASSES, 1), TINY, CLASSES)
    before = keras_spikes_and_logits(first, TINY, CLASSES, IMAGES)
    for n_classes in range(CLASSES + 1, CLASSES + 5):  # with the first, more than are kept
        network("qat", TINY, n_classes)
    other = keras_spikes_and_logits(second, TINY, CLASSES, IMAGES)
    after = keras_spikes_and_logits(first, TINY, CLASSES, IMAGES)
    assert not np.array_equal(before[1], other[1])
    assert np.array_equal(before[1], after[1])


def test_the_probe_gives_the_networks_own_logits(quantized: keras.Model) -> None:
    weights = network("qat", TINY, CLASSES).weights()
    spikes, logits = keras_spikes_and_logits(weights, TINY, CLASSES, IMAGES)
    np.testing.assert_array_equal(logits, network("qat", TINY, CLASSES).logits(IMAGES))
    assert spikes.dtype == np.uint8 and spikes.shape == (len(IMAGES), TINY.spikes)
    empty = keras_spikes_and_logits(weights, TINY, CLASSES, IMAGES[:0])
    assert empty[0].shape == (0, TINY.spikes) and empty[1].shape == (0, CLASSES)


def test_quantization_keeps_the_networks_opinion() -> None:
    """Quantized logits follow the float ones; a wrong scale or offset anywhere breaks that."""
    correlations = []
    for seed in range(6):
        weights = random_weights(TINY, CLASSES, seed)
        floating = network("float", TINY, CLASSES)
        floating.set_weights(weights)
        expected = floating.logits(IMAGES)
        quantized = quantized_from(weights, TINY, CLASSES)
        _, logits = keras_spikes_and_logits(quantized, TINY, CLASSES, IMAGES)
        correlations.append(np.corrcoef(expected.ravel(), logits.ravel())[0, 1])
    assert np.mean(correlations) > 0.8, correlations


def test_a_grown_quantized_head_keeps_its_columns() -> None:
    weights = quantized_from(random_weights(TINY, CLASSES, 2), TINY, CLASSES)
    grown = grow_head(weights, CLASSES + 2)
    np.testing.assert_array_equal(grown["head/kernel"][:, :CLASSES], weights["head/kernel"])
    assert not grown["head/kernel"][:, CLASSES:].any()
    np.testing.assert_allclose(grown["head/bias"][CLASSES:], weights["head/bias"].mean())


def test_ranges_scale_what_they_belong_to() -> None:
    chain = fold(random_weights(TINY, CLASSES, 0), TINY)
    ranges = np.full(len(chain.layers), 3.75)
    same = quantizable_weights(chain, ranges)
    for layer in chain.layers[1:-1]:
        np.testing.assert_allclose(same[f"{layer.name}/kernel"], layer.kernel, rtol=1e-6)
    assert same["head/kernel"].shape == (TINY.spikes, CLASSES)
