"""What the quantized network is trained for beside its labels, against plain NumPy."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.data.balance import class_log_priors
from common.keras_setup import tf
from edge_client.losses import covariance, distilled, mean_level, out_of_band


def some_spikes(seed: int, n: int, units: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).integers(0, 2, (n, units)).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 40), units=st.integers(2, 24))
def test_covariance_and_band_of_spikes(seed: int, n: int, units: int) -> None:
    spikes = some_spikes(seed, n, units)
    found = np.cov(spikes.T, bias=True) * (1 - np.eye(units))
    expected = 0.5 * (found**2).sum() / units
    np.testing.assert_allclose(covariance(tf.constant(spikes)).numpy(), expected, atol=1e-5)
    middle = max(1, 3 * units // 8) / units
    expected = ((spikes.mean(axis=1) - middle) ** 2).mean()
    np.testing.assert_allclose(out_of_band(tf.constant(spikes)).numpy(), expected, atol=1e-6)


def test_independent_spikes_in_the_band_cost_nothing() -> None:
    every = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)], np.float32)
    assert abs(float(covariance(tf.constant(every)))) < 1e-6
    assert float(covariance(tf.constant(np.repeat(every[:, :1], 3, axis=1)))) > 0.05
    band = np.zeros((5, 16), np.float32)
    band[:, 3:9] = 1
    assert float(out_of_band(tf.constant(band))) == 0


def test_mean_level_counts_steps_over_all_outputs() -> None:
    full, silent = np.full((2, 3, 3, 4), 3.75, np.float32), np.zeros((2, 1, 1, 28), np.float32)
    level = mean_level([tf.constant(full), tf.constant(silent)])
    np.testing.assert_allclose(level.numpy(), 15 * 36 / 64, rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0, 1, width=32), known=st.integers(1, 5))
def test_distilled_loss(seed: int, share: float, known: int) -> None:
    """A known case's target is part label, part teacher; another's is its label."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (6, 5)).astype(np.float32)
    answers = rng.normal(0, 2, (6, known)).astype(np.float32)
    labels, losses = rng.integers(0, 5, 6), rng.uniform(0, 3, 6).astype(np.float32)
    priors = np.log(rng.dirichlet(np.ones(5))).astype(np.float32)
    values = (losses, logits, answers, labels, priors)
    found = distilled(*(tf.constant(value) for value in values), tf.constant(share))
    logits[:, known:] += priors[known:] + np.log(known)
    log = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    soft = np.exp(answers) / np.exp(answers).sum(axis=1, keepdims=True)
    unlike = -(soft * log[:, :known]).sum(axis=1)
    mixed = (1 - share) * losses + share * unlike
    expected = np.where(labels < known, mixed, losses)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_distillation_does_not_push_down_a_class_that_the_site_lacks() -> None:
    rng = np.random.default_rng(0)
    logits = tf.Variable(rng.normal(0, 1, (8, 4)).astype(np.float32))
    answers = tf.constant(rng.normal(0, 1, (8, 3)).astype(np.float32))
    labels = rng.integers(0, 3, 8)

    def gradients_of_last(labels: NDArray[np.int64]) -> NDArray[np.float32]:
        priors = tf.constant(class_log_priors(labels, 4, tau=1.0))
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits + priors)
            share = tf.constant(1.0)
            loss = distilled(losses, logits, answers, tf.constant(labels), priors, share)
        return np.asarray(tape.gradient(loss, logits)[:, 3])

    assert np.abs(gradients_of_last(labels)).max() < 1e-6
    with_one_case = gradients_of_last(np.append(labels[1:], 3))
    assert with_one_case[-1] < -0.1 and with_one_case[:-1].min() > 0
