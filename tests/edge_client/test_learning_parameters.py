import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DataUnfit
from edge_client.learning_parameters import learning_parameters


def spikes_with(counts: list[int], units: int) -> np.ndarray:
    spikes = np.zeros((len(counts), units), np.uint8)
    for row, count in zip(spikes, counts, strict=True):
        row[:count] = 1
    return spikes


def test_weights_follow_the_median_number_of_spikes() -> None:
    chosen = learning_parameters(spikes_with([5, 10, 60], 64), np.array([0, 1, 2]), 3)
    assert chosen.num_weights == 12  # 1.2 x 10
    assert chosen.competition <= 0.5


def test_neurons_follow_the_median_class() -> None:
    labels = np.array([0] * 3 + [1] * 7 + [2] * 40)
    assert learning_parameters(spikes_with([4] * 50, 16), labels, 4).neurons_per_class == 7
    many = np.zeros(500, np.int64)
    assert learning_parameters(spikes_with([4] * 500, 16), many, 1).neurons_per_class == 50


@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(40, 80))
def test_bounds(counts: list[int], units: int) -> None:
    if not any(counts):
        return
    chosen = learning_parameters(spikes_with(counts, units), np.zeros(len(counts), int), 1)
    assert 1 <= chosen.num_weights <= units // 2
    assert 1 <= chosen.neurons_per_class <= len(counts)


def test_nothing_to_learn_from() -> None:
    with pytest.raises(DataUnfit, match="nothing to learn from"):
        learning_parameters(np.zeros((0, 8), np.uint8), np.zeros(0, np.int64), 3)


def test_a_silent_program_gets_the_smallest_layer() -> None:
    chosen = learning_parameters(np.zeros((4, 8), np.uint8), np.zeros(4, np.int64), 3)
    assert chosen.num_weights == 1
