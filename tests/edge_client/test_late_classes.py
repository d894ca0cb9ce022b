"""Neurons of classes that came later than the program: what they win, and what they take."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.neurons import Neurons, connections_of
from edge_client.late_classes import MOST_TAKEN, KnownClasses
from tests.edge_client.test_prototypes import some_spikes

WEIGHTS = connections_of(64)


def share_won(won: np.ndarray, labels: np.ndarray) -> float:
    """Share of the cases that are won, each class counting the same."""
    return float(np.mean([won[labels == k].mean() for k in np.unique(labels)]))


def taught(seed: int, per_class: int = 60, cases: int = 10) -> tuple[KnownClasses, Neurons]:
    spikes, labels = some_spikes(seed, 5, per_class)
    known = labels < 4
    before = KnownClasses.of(spikes[known], labels[known], 4, WEIGHTS)
    return before, before.taught(spikes[~known][:cases], WEIGHTS)


@pytest.mark.parametrize("seed", range(4))
def test_a_late_class_is_recognised_and_takes_few_cases(seed: int) -> None:
    spikes, labels = some_spikes(seed, 5, 200)
    learn = np.arange(len(labels)) % 2 == 0
    known = labels < 4
    before = KnownClasses.of(spikes[learn & known], labels[learn & known], 4, WEIGHTS)
    late = before.taught(spikes[learn & ~known][:10], WEIGHTS)
    assert late.weights.sum() == WEIGHTS and len(late) == 1
    test = spikes[~learn], labels[~learn]
    won = late.answers(test[0])[:, 0] > before.neurons.answers(test[0]).max(axis=1)
    assert won[test[1] == 4].mean() > 0.4
    assert share_won(won[test[1] < 4], test[1][test[1] < 4]) < 2 * MOST_TAKEN


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_order_of_the_exemplars_is_no_matter(seed: int) -> None:
    spikes, labels = some_spikes(seed, 4)
    order = np.random.default_rng(seed).permutation(len(labels))
    late = spikes[labels == 3]
    one = KnownClasses.of(spikes, labels, 4, WEIGHTS).taught(late, WEIGHTS)
    shuffled = KnownClasses.of(spikes[order], labels[order], 4, WEIGHTS)
    other = shuffled.taught(late[::-1], WEIGHTS)
    np.testing.assert_array_equal(one.weights, other.weights)
    np.testing.assert_array_equal(one.thresholds, other.thresholds)


def test_another_site_sets_its_own_threshold() -> None:
    before, late = taught(3)
    spikes, labels = some_spikes(3, 5, 90)
    known = (labels < 4) & (np.arange(len(labels)) % 90 >= 60)
    there = KnownClasses.of(spikes[known], labels[known], 4, WEIGHTS)
    arrived = there.limit(late)
    np.testing.assert_array_equal(arrived.weights, late.weights)
    for sent in (-99, 0, 99):
        again = there.limit(late.raised(np.array([sent], np.int32)))
        np.testing.assert_array_equal(again.thresholds, arrived.thresholds)
    won = arrived.answers(there.spikes)[:, 0] > there.best
    assert 0 < share_won(won, there.labels) <= MOST_TAKEN
    unseen = spikes[labels == 4][10:]
    best = there.neurons.answers(unseen).max(axis=1)
    there_won = (arrived.answers(unseen)[:, 0] > best).mean()
    here_best = before.neurons.answers(unseen).max(axis=1)
    assert there_won > 0.6 * (late.answers(unseen)[:, 0] > here_best).mean() > 0


@pytest.mark.parametrize("counts", [(1, 0, 0), (1, 1, 0), (2, 1, 9), (7, 40, 3)])
def test_few_exemplars(counts: tuple[int, ...]) -> None:
    """A class of one exemplar, classes without any: nothing may be won that was not measured."""
    spikes, labels = some_spikes(1, 3, 40)
    kept = np.concatenate([np.flatnonzero(labels == k)[:n] for k, n in enumerate(counts)])
    known = KnownClasses.of(spikes[kept], labels[kept], 3, WEIGHTS)
    late = known.taught(spikes[:2], WEIGHTS)
    won = late.answers(spikes[kept])[:, 0] > known.best
    assert known.best.shape == (len(kept),) and np.isfinite(late.thresholds).all()
    assert len(kept) == 1 or share_won(won, labels[kept]) <= 0.5
