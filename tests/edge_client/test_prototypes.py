import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.neurons import Neurons, connections_of
from edge_client.prototypes import (
    balancing_thresholds,
    discriminative_prototypes,
    strongest,
)

Labelled = tuple[NDArray[np.uint8], NDArray[np.int64]]


def some_spikes(seed: int, n_classes: int, per_class: int = 20, units: int = 64) -> Labelled:
    """Spikes of classes that share most of their rates and differ in a few."""
    rng = np.random.default_rng(seed)
    rates = np.tile(rng.choice([0.1, 0.9], units), (n_classes, 1))
    for row in rates:
        row[rng.choice(units, 8, replace=False)] = rng.choice([0.02, 0.98], 8)
    labels = np.repeat(np.arange(n_classes), per_class)
    return (rng.random((len(labels), units)) < rates[labels]).astype(np.uint8), labels


def recalls(neurons: Neurons, spikes: NDArray[np.uint8], labels: NDArray[np.int64]) -> list[float]:
    found = (spikes.astype(int) @ neurons.weights - neurons.thresholds).argmax(axis=1)
    return [float((found[labels == k] == k).mean()) for k in np.unique(labels)]


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_classes=st.integers(1, 9),
    num_weights=st.integers(1, 64),
)
def test_every_neuron_has_its_connections(seed: int, n_classes: int, num_weights: int) -> None:
    spikes, labels = some_spikes(seed, n_classes, per_class=3)
    neurons = discriminative_prototypes(spikes, labels, n_classes + 1, num_weights)
    assert neurons.weights.shape == (64, n_classes + 1) and len(neurons) == n_classes + 1
    assert neurons.weights.dtype == np.uint8 and neurons.thresholds.dtype == np.int32
    assert (neurons.weights.sum(axis=0) == num_weights).all()
    assert (np.abs(neurons.thresholds) < 10 * num_weights + 100).all()
    assert neurons.thresholds[-1] == 0  # of a class without cases


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_order_of_the_exemplars_is_no_matter(seed: int) -> None:
    spikes, labels = some_spikes(seed, 4)
    order = np.random.default_rng(seed).permutation(len(labels))
    one = discriminative_prototypes(spikes, labels, 4, 24)
    other = discriminative_prototypes(spikes[order], labels[order], 4, 24)
    np.testing.assert_array_equal(one.weights, other.weights)
    np.testing.assert_array_equal(one.thresholds, other.thresholds)


@pytest.mark.parametrize("seed", range(5))
def test_unseen_cases_are_recognised(seed: int) -> None:
    spikes, labels = some_spikes(seed, 5, per_class=120)
    taught = np.arange(len(labels)) % 6 == 0
    neurons = discriminative_prototypes(spikes[taught], labels[taught], 5, connections_of(64))
    assert np.mean(recalls(neurons, spikes[~taught], labels[~taught])) > 0.75


def test_a_large_class_is_not_favoured() -> None:
    spikes, labels = some_spikes(3, 3, per_class=200)
    kept = (labels == 0) | (np.arange(len(labels)) % 20 == 0)
    neurons = discriminative_prototypes(spikes[kept], labels[kept], 3, 24)
    found = recalls(neurons, spikes, labels)
    assert min(found) > 0.6 and max(found) - min(found) < 0.35


def test_equal_exemplars_are_no_trouble() -> None:
    spikes = np.ones((6, 16), np.uint8)
    neurons = discriminative_prototypes(spikes, np.array([0, 0, 0, 1, 1, 1]), 2, 5)
    assert (neurons.weights.sum(axis=0) == 5).all()


def test_thresholds_balance_the_classes() -> None:
    rng = np.random.default_rng(0)
    answers = rng.integers(0, 40, (300, 4)) + np.array([0, 10, 20, 30])
    weight = np.full(300, 1 / 300)
    thresholds = balancing_thresholds(answers, weight, 0.1)
    scores = np.exp(0.1 * (answers - thresholds))
    shares = (weight[:, None] * scores / scores.sum(axis=1, keepdims=True)).sum(axis=0)
    np.testing.assert_allclose(shares, 0.25, atol=1e-6)


def test_of_equal_scores_the_first_are_chosen() -> None:
    chosen = strongest(np.array([[1.0, 0.0], [1.0, 2.0], [1.0 + 1e-12, 1.0]]), 2)
    assert chosen.tolist() == [[1, 0], [1, 1], [0, 1]]


def test_joined_and_chosen() -> None:
    one = Neurons(np.array([[1], [0]], np.uint8), np.array([3], np.int32))
    two = Neurons(np.array([[0, 1], [1, 0]], np.uint8), np.array([4, 5], np.int32))
    joined = Neurons.joined([one, two])
    assert len(joined) == 3 and joined.thresholds.tolist() == [3, 4, 5]
    assert joined.chosen([2, 0]).weights.tolist() == [[1, 1], [0, 0]]
