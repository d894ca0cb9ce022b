"""Local training at one site, with real networks of the tests' one shape."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from numpy.typing import NDArray

from common.data.balance import class_log_priors, pooled_class_shares
from common.data.cases import Cases
from common.keras_setup import tf
from common.qana.convert import convert
from common.qana.fold import fold
from common.qana.networks import Phase, initial_weights, network
from common.qana.quantize import observe_ranges, quantizable_weights
from common.qana.weights import NamedWeights, is_statistic
from edge_client.training import TrainSettings, train_locally
from tests.support.tiny_run import TINY

N_CLASSES = 7
ABSENT = 3
SETTINGS = TrainSettings(
    phase="float",
    epochs=6,
    batch=16,
    learning_rate=3e-3,
    prior_strength=1.0,
    proximal=0.0,
    seed=1,
)


@lru_cache
def start() -> NamedWeights:
    return initial_weights(TINY, N_CLASSES, seed=0)


@lru_cache
def cases() -> Cases:
    """48 random images of all classes but one."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (48, 32, 32, 3)).astype(np.uint8)
    present = [c for c in range(N_CLASSES) if c != ABSENT]
    labels = np.array([present[i % len(present)] for i in range(48)], np.int64)
    names = tuple(f"c{i}" for i in range(48))
    return Cases(images, labels, names, names)


def trained(settings: TrainSettings) -> NamedWeights:
    return train_locally(start(), cases(), TINY, N_CLASSES, settings).weights


def distance(weights: NamedWeights) -> float:
    learned = [n for n in weights if not is_statistic(n)]
    return float(np.sqrt(sum(np.square(weights[n] - start()[n]).sum() for n in learned)))


@pytest.mark.parametrize("prior_strength", [1.0, 0.0])
def test_a_class_that_a_site_lacks_is_not_pushed_down(prior_strength: float) -> None:
    """It drops out of the local loss, also where the loss is not corrected for the prior."""
    found = trained(replace(SETTINGS, prior_strength=prior_strength))
    moved = np.abs(found["head/bias"] - start()["head/bias"])
    assert moved[ABSENT] < 1e-6
    assert np.delete(moved, ABSENT).min() > 1e-3


def test_with_all_sites_class_prior_a_class_that_a_site_lacks_is_pushed_down_by_its_share() -> None:
    counts = np.bincount(cases().labels, minlength=N_CLASSES)
    counts[ABSENT] = 20  # other sites have it
    pooled = pooled_class_shares(counts)
    found = trained(replace(SETTINGS, class_prior=pooled))
    assert found["head/bias"][ABSENT] < start()["head/bias"][ABSENT] - 1e-3


def test_shares_of_the_sites_own_cases_are_what_it_takes_by_itself() -> None:
    present = np.array([c for c in range(N_CLASSES) if c != ABSENT])
    shares = np.full(N_CLASSES, np.exp(-30.0))  # an absent class drops out of the loss
    shares[present] = np.bincount(cases().labels, minlength=N_CLASSES)[present] / len(cases())
    own, told = (
        trained(replace(SETTINGS, epochs=1, class_prior=prior))
        for prior in ((), tuple(float(share) for share in shares))
    )
    assert all(np.allclose(own[n], told[n], atol=1e-5) for n in own)


def test_fixed_batch_norm_stays_and_the_rest_is_trained() -> None:
    found = trained(replace(SETTINGS, fixed_batch_norm=True))
    for name in found:
        if is_statistic(name):
            assert found[name].tobytes() == start()[name].tobytes()
    assert distance(found) > 0
    before = trained(SETTINGS)
    assert any(before[n].tobytes() != start()[n].tobytes() for n in before if is_statistic(n))


def test_fixed_batch_norm_trains_what_inference_computes() -> None:
    """With moving means far off, only the loss that uses them is far off with them."""
    weights = {
        name: array + 3
        if name.endswith("/moving_mean")
        else array * (20 if name == "head/kernel" else 1)
        for name, array in trained(SETTINGS).items()
    }
    net = network("float", TINY, N_CLASSES)
    net.set_weights(weights)
    labels = cases().labels
    logits = net.logits(cases().images) + class_log_priors(labels, N_CLASSES)
    expected = float(tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)))
    step = replace(SETTINGS, epochs=1, batch=64, learning_rate=1e-9)
    losses = {
        fixed: train_locally(
            weights, cases(), TINY, N_CLASSES, replace(step, fixed_batch_norm=fixed)
        ).loss
        for fixed in (True, False)
    }
    # The step sees augmented images.
    assert abs(losses[True] - expected) < 0.1 * expected
    assert abs(losses[False] - expected) > 0.2 * expected


def test_a_strong_proximal_term_keeps_the_weights_near_the_global_ones() -> None:
    free = trained(SETTINGS)
    bound = trained(replace(SETTINGS, proximal=1e4))
    assert 0 < distance(bound) < 0.5 * distance(free)


def test_a_penalty_on_events_lowers_them_and_nothing_else_in_the_float_phase() -> None:
    chain = fold(start(), TINY)
    quantized = quantizable_weights(chain, observe_ranges(chain, TINY, cases().images))
    settings = replace(SETTINGS, phase="qat", epochs=12, learning_rate=1e-3)

    def events(penalty: float) -> float:
        result = train_locally(
            quantized, cases(), TINY, N_CLASSES, replace(settings, event_penalty=penalty)
        )
        found = convert(result.weights, TINY, N_CLASSES).mean_spikes(cases().images)
        return sum(count for name, count in found.items() if name != "spikes")

    assert events(10.0) < 0.8 * events(0.0)
    one = replace(SETTINGS, epochs=1)
    same, penalized = trained(one), trained(replace(one, event_penalty=10.0))
    assert all(np.array_equal(same[n], penalized[n]) for n in same)


def test_spikes_are_trained_towards_a_band() -> None:
    settings = replace(SETTINGS, phase="qat", epochs=12, learning_rate=1e-3)

    def outside(weight: float) -> float:
        changed = replace(settings, spike_band=weight)
        found = train_locally(quantized_start(), cases(), TINY, N_CLASSES, changed)
        net = network("qat", TINY, N_CLASSES)
        net.set_weights(found.weights)
        spikes = net.spikes_and_logits(cases().images)[0]
        return float(((spikes.mean(axis=1) - 12 / 32) ** 2).mean())

    assert outside(100.0) < 0.5 * outside(0.0)


def quantized_start() -> NamedWeights:
    chain = fold(start(), TINY)
    return quantizable_weights(chain, observe_ranges(chain, TINY, cases().images))


QAT = replace(SETTINGS, phase="qat", learning_rate=1e-3, distillation=1.0)


def test_a_distilled_network_answers_as_its_teacher_whatever_the_labels() -> None:
    teacher = {**start(), "head/kernel": start()["head/kernel"] * 4}
    wrong = replace(cases(), labels=cases().labels[::-1].copy())

    def distilled(labelled: Cases, share: float, epochs: int = 20) -> NamedWeights:
        settings = replace(QAT, epochs=epochs, distillation=share)
        found = train_locally(quantized_start(), labelled, TINY, N_CLASSES, settings, teacher)
        return found.weights

    one, other = distilled(cases(), 1.0, epochs=1), distilled(wrong, 1.0, epochs=1)
    assert all(np.array_equal(one[name], other[name]) for name in one)
    answers = probabilities("float", teacher)
    near, far = distilled(cases(), 1.0), distilled(cases(), 0.0)
    distance_near, distance_far = (
        np.abs(probabilities("qat", found) - answers).mean() for found in (near, far)
    )
    assert distance_near < 0.5 * distance_far


def probabilities(phase: Phase, weights: NamedWeights) -> NDArray[np.float64]:
    net = network(phase, TINY, N_CLASSES)
    net.set_weights(weights)
    scores = np.exp(net.logits(cases().images).astype(np.float64))
    return np.asarray(scores / scores.sum(axis=1, keepdims=True))


def test_a_class_that_the_teacher_does_not_know_is_learned_from_its_labels() -> None:
    known = N_CLASSES - 1
    few = {**start(), "head/kernel": start()["head/kernel"][:, :known]}
    teacher = {**few, "head/bias": start()["head/bias"][:known]}
    new = cases().labels == known
    assert new.any()

    def share_of_new(weights: NamedWeights) -> float:
        return float(probabilities("qat", weights)[new, known].mean())

    settings = replace(QAT, epochs=20)
    found = train_locally(quantized_start(), cases(), TINY, N_CLASSES, settings, teacher)
    assert share_of_new(found.weights) > 2 * share_of_new(quantized_start())


def test_the_same_seed_gives_the_same_bits() -> None:
    settings = replace(SETTINGS, epochs=1)
    first = trained(settings)
    trained(replace(settings, seed=2, learning_rate=0.1))  # leaves nothing behind
    second = trained(settings)
    assert {n: a.tobytes() for n, a in first.items()} == {n: a.tobytes() for n, a in second.items()}
    other = trained(replace(settings, seed=2))
    assert any(not np.array_equal(first[n], other[n]) for n in first)


def test_training_moves_weights_and_statistics() -> None:
    moved = trained(replace(SETTINGS, epochs=1))
    assert distance(moved) > 0
    assert all(not np.array_equal(moved[n], start()[n]) for n in start() if is_statistic(n))


def test_a_single_case_can_be_trained_on() -> None:
    result = train_locally(start(), cases().subset(np.array([0])), TINY, N_CLASSES, SETTINGS)
    assert result.examples == 1
    assert all(np.isfinite(a).all() for a in result.weights.values())
