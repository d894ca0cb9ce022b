import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.qana.chain import Chain, normalized
from common.qana.config import QanaConfig
from common.qana.fold import fold
from common.qana.networks import initial_weights, network
from common.qana.quantize import (
    ACTIVATION_RANGE,
    chain_names,
    float_chain_model,
    observe_ranges,
    set_chain_weights,
)
from common.qana.weights import grow_head, trained_part
from tests.qana.tiny import BARE, CLASSES, LACKING, TINY, random_images, random_weights

# Identity residuals and projections; one and two blocks a stage; narrower after wider.
CONFIGS = (
    TINY,
    QanaConfig(input_size=32, stem=8, widths=(8, 16), depth=2, transform=8, spikes=8),
    QanaConfig(input_size=32, stem=16, widths=(8, 8), squeeze=2, transform=16, spikes=8),
    QanaConfig(input_size=32, stem=8, widths=(8, 16), strides=(2, 1), transform=8, spikes=8),
    QanaConfig(input_size=48, stem=8, widths=(16,), squeeze=8, transform=8, spikes=16),
    BARE,
    *LACKING,
)
IMAGES = 6
seeds = st.integers(0, 2**32 - 1)


def run_chain(chain: Chain, images: NDArray[np.uint8]) -> list[NDArray[np.float64]]:
    """The chain in float64, written anew: every layer's outputs."""
    x = images.astype(np.float64)
    outputs = []
    for layer in chain.layers:
        if layer.name == "head":
            x = x.mean(axis=(1, 2), keepdims=True)  # of one pixel
        x = tf.nn.conv2d(x, layer.kernel.astype(np.float64), layer.stride, "SAME").numpy()
        x = x + layer.bias
        if layer.pooled:
            x = x.mean(axis=(1, 2), keepdims=True)
        if layer.bound is not None:
            x = np.clip(x, 0, layer.bound)
        outputs.append(x)
    return outputs


def chain_logits(
    chain: Chain, config: QanaConfig, images: NDArray[np.uint8]
) -> NDArray[np.float32]:
    model = float_chain_model(config, chain.n_classes)
    set_chain_weights(model, chain)
    return np.asarray(model(images, training=False))


@settings(max_examples=120)
@given(config=st.sampled_from(CONFIGS), seed=seeds)
def test_the_folded_chain_computes_the_training_graphs_logits(
    config: QanaConfig, seed: int
) -> None:
    weights = random_weights(config, CLASSES, seed)
    images = random_images(IMAGES, seed, config.input_size)
    net = network("float", config, CLASSES)
    net.set_weights(weights)
    expected = net.logits(images)
    chain = fold(weights, config)
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(
        chain_logits(chain, config, images) / scale, expected / scale, atol=1e-4
    )
    exact = run_chain(chain, images)[-1].reshape(IMAGES, -1)
    np.testing.assert_allclose(exact / scale, expected / scale, atol=1e-4)


def test_random_weights_reach_every_part_of_the_network() -> None:
    """Else the property above would hold for networks that are silent or saturated."""
    config = CONFIGS[1]
    spread = [
        run_chain(fold(random_weights(config, CLASSES, s), config), random_images(IMAGES, s, 32))
        for s in range(5)
    ]
    for index, name in enumerate(chain_names(config)):
        assert np.mean([outputs[index].std() for outputs in spread]) > 0.1, name


@pytest.mark.parametrize("config", CONFIGS)
def test_a_chain_has_the_named_layers_and_widths(config: QanaConfig) -> None:
    chain = fold(initial_weights(config, CLASSES, 0), config)
    assert [layer.name for layer in chain.layers] == chain_names(config)
    assert chain.n_classes == CLASSES and chain.layers[-1].bound is None
    for layer, following in zip(chain.layers, chain.layers[1:], strict=False):
        assert layer.kernel.shape[-1] == layer.bias.shape[0] == following.kernel.shape[2]
    again = chain.with_weights(chain.weights())
    assert all(
        np.array_equal(a.kernel, b.kernel) for a, b in zip(chain.layers, again.layers, strict=True)
    )


@settings(max_examples=25)
@given(config=st.sampled_from(CONFIGS), seed=seeds, margin=st.floats(1.0, 2.0))
def test_a_normalized_chain_keeps_its_logits(config: QanaConfig, seed: int, margin: float) -> None:
    chain = fold(random_weights(config, CLASSES, seed), config)
    images = random_images(IMAGES, seed, config.input_size)
    before = run_chain(chain, images)
    # Nothing saturates: a range is what occurs and more, or the bound that clips already.
    ranges = np.array([min(o.max() * margin + 1e-3, 6.0) for o in before])
    after = run_chain(normalized(chain, ranges, ACTIVATION_RANGE), images)
    np.testing.assert_allclose(after[-1], before[-1], rtol=1e-4, atol=1e-4)
    for index, layer in enumerate(chain.layers[:-2]):
        expected = before[index] * (ACTIVATION_RANGE / ranges[index])
        np.testing.assert_allclose(after[index], expected, rtol=1e-3, atol=1e-4, err_msg=layer.name)


def test_a_normalized_chain_saturates_at_the_ranges_end() -> None:
    chain = fold(random_weights(TINY, CLASSES, 1), TINY)
    images = random_images(IMAGES, 1)
    before = run_chain(chain, images)
    ranges = np.full(len(chain.layers), 6.0)
    ranges[0] = before[0].max() / 2
    after = run_chain(normalized(chain, ranges, ACTIVATION_RANGE), images)
    assert after[0].max() == ACTIVATION_RANGE
    np.testing.assert_allclose(
        after[0] * ranges[0] / ACTIVATION_RANGE,
        np.minimum(before[0], ranges[0]),
        rtol=1e-4,
        atol=1e-4,
    )


def test_observed_ranges_are_within_what_occurs() -> None:
    chain = fold(random_weights(TINY, CLASSES, 2), TINY)
    images = random_images(20, 2)
    ranges = observe_ranges(chain, TINY, images)
    outputs = run_chain(chain, images)
    assert ranges.shape == (len(chain.layers),) and ranges[-1] == 0
    for upper, output in zip(ranges[:-1], outputs[:-1], strict=True):
        assert 0.05 <= upper <= max(output.max(), 0.05) + 1e-5


@settings(max_examples=20)
@given(seed=seeds, extra=st.integers(0, 3))
def test_new_classes_leave_the_old_ones_logits(seed: int, extra: int) -> None:
    weights = random_weights(TINY, CLASSES, seed)
    images = random_images(IMAGES, seed)
    before = run_chain(fold(weights, TINY), images)[-1]
    grown = grow_head(weights, CLASSES + extra)
    after = run_chain(fold(grown, TINY), images)[-1]
    assert after.shape[-1] == CLASSES + extra
    np.testing.assert_allclose(after[..., :CLASSES], before, atol=1e-9)
    assert weights["head/bias"].shape == (CLASSES,)
    if extra > 1:  # what was trained after one that was not is cut off too
        grown["head/kernel"][..., -1] = 1
    trained = trained_part(grown)
    assert all(np.array_equal(trained[name], weights[name]) for name in weights)


def test_initial_weights_depend_on_the_seed_only() -> None:
    first = initial_weights(TINY, CLASSES, 4)
    tf.random.uniform((3,))
    np.random.default_rng(0).normal()
    again, other = initial_weights(TINY, CLASSES, 4), initial_weights(TINY, CLASSES, 5)
    assert list(first) == list(again)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert any(not np.array_equal(first[name], other[name]) for name in first)
