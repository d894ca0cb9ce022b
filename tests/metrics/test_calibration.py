"""Temperature scaling: recovers what is known, changes no answer, and is bounded."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.calibration import (
    HIGHEST,
    LOWEST,
    Calibration,
    cross_fitted,
    fit_calibration,
    probabilities,
    smoothed_log_prior,
)
from common.reliability import expected_error, reliability, reliability_table

PRIOR = np.array([0.05, 0.1, 0.15, 0.7])
seeds = st.integers(0, 2**32 - 1)


def drawn(
    seed: int, n: int, prior: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Scores and labels drawn from softmax(scores + log prior), by which T is 1."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, 4)) * 2
    shares = probabilities(scores, 1.0, None if prior is None else np.log(prior))
    labels = (rng.random(n)[:, None] > shares.cumsum(axis=1)).sum(axis=1)
    return scores, np.minimum(labels, 3).astype(np.int64)


def names(n: int) -> list[str]:
    return [f"L{i}" for i in range(n)]


@given(seeds, st.floats(LOWEST, HIGHEST))
def test_temperature_changes_no_answer(seed: int, temperature: float) -> None:
    scores, _ = drawn(seed, 30)
    scores[::3, 1] = -np.inf
    found = probabilities(scores, temperature)
    np.testing.assert_array_equal(found.argmax(axis=1), scores.argmax(axis=1))
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (found[::3, 1] == 0).all()


@given(seeds, st.floats(-1e6, 1e6))
def test_a_constant_on_all_scores_changes_nothing(seed: int, constant: float) -> None:
    scores, _ = drawn(seed, 10)
    np.testing.assert_allclose(
        probabilities(scores + constant, 2.0, np.log(PRIOR)),
        probabilities(scores, 2.0, np.log(PRIOR)),
        atol=1e-8,
    )


@pytest.mark.parametrize("known", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("prior", [None, PRIOR])
def test_a_known_temperature_is_found(known: float, prior: NDArray[np.float64] | None) -> None:
    scores, labels = drawn(1, 20_000, prior)
    log_prior = None if prior is None else np.log(prior)
    found = fit_calibration(scores * known, labels, names(20_000), log_prior)
    assert found.temperature == pytest.approx(known, rel=0.05)
    assert found.lesions == 20_000 and found.is_fitted and not found.note
    assert bool(found.log_prior) == (prior is not None)


def test_the_prior_is_left_out_where_the_scores_hold_it() -> None:
    scores, labels = drawn(2, 5000, PRIOR)
    with_prior = scores + np.log(PRIOR)
    assert fit_calibration(with_prior, labels, names(5000), np.log(PRIOR)).log_prior == ()
    kept = fit_calibration(with_prior, labels, names(5000), np.log(PRIOR), keep_prior=True)
    np.testing.assert_allclose(kept.log_prior, np.log(PRIOR))


def test_the_loss_is_lowest_there() -> None:
    scores, labels = drawn(3, 400, PRIOR)
    fit = fit_calibration(scores * 3, labels, names(400), np.log(PRIOR))
    best = reliability(fit.probabilities(scores * 3), labels).nll
    for other in (0.8, 0.95, 1.05, 1.25):
        shares = probabilities(scores * 3, fit.temperature * other, fit.log_prior)
        assert reliability(shares, labels).nll > best - 1e-3  # one pseudo-case between the two


def test_perfect_and_meaningless_scores_stay_within_bounds() -> None:
    labels = np.arange(40) % 4
    perfect = fit_calibration(np.eye(4)[labels] * 5, labels, names(40))
    shares = perfect.probabilities(np.eye(4)[labels] * 5)
    assert LOWEST < perfect.temperature < 5
    assert shares.max() == pytest.approx(1 - 1 / 41 * 3 / 4, abs=0.01)  # 40 of 41, and a quarter
    noise = np.random.default_rng(0).normal(size=(40, 4)) * 100
    worthless = fit_calibration(noise, labels, names(40))
    assert worthless.temperature == pytest.approx(HIGHEST, rel=0.01)


@pytest.mark.parametrize(
    ("n", "labels", "note"),
    [
        (12, np.arange(12) % 4, "too few validation lesions (12 of 20)"),
        (40, np.zeros(40, np.int64), "all validation cases are of one class"),
        (0, np.zeros(0, np.int64), "too few validation lesions (0 of 20)"),
    ],
)
def test_what_cannot_be_fitted_has_a_name(n: int, labels: NDArray[np.int64], note: str) -> None:
    scores = np.random.default_rng(0).normal(size=(n, 4))
    found = fit_calibration(scores, labels, names(n), np.log(PRIOR))
    assert found == Calibration(note=note) and not found.is_fitted
    np.testing.assert_allclose(found.probabilities(scores), probabilities(scores))


def test_images_of_few_lesions_are_few() -> None:
    scores, labels = drawn(0, 100)
    same = [f"L{i % 10}" for i in range(100)]
    assert fit_calibration(scores, labels, same).note == "too few validation lesions (10 of 20)"


def test_cases_of_a_class_that_is_no_answer_are_left_out() -> None:
    scores, labels = drawn(4, 300)
    scores[:, 3] = -np.inf
    inside = np.flatnonzero(labels != 3)
    found = fit_calibration(scores, labels, names(300))
    only = fit_calibration(scores[inside], labels[inside], names(len(inside)))
    assert found == only
    with pytest.raises(ValueError, match="not finite"):
        fit_calibration(np.full((3, 2), np.nan), np.zeros(3, np.int64), names(3))
    with pytest.raises(ValueError, match="do not fit"):
        fit_calibration(scores, labels[:5], names(300))


def test_cross_fitting_never_uses_a_lesion_for_itself() -> None:
    scores, labels = drawn(5, 400)
    lesions = [f"L{i // 4}" for i in range(400)]
    seen: list[set[str]] = []

    def fit(chosen: NDArray[np.int64]) -> Calibration:
        inside = {lesions[i] for i in chosen}
        seen.append(inside)
        mine = fit_calibration(scores[chosen], labels[chosen], [lesions[i] for i in chosen])
        return Calibration(len(seen), lesions=mine.lesions)

    found, used = cross_fitted(scores, labels, lesions, fit)
    assert len(used) == 5 and all(60 < len(part) < 100 for part in seen)
    for number, inside in enumerate(seen, start=1):
        outside = [i for i in range(400) if lesions[i] not in inside]
        np.testing.assert_allclose(found[outside], probabilities(scores[outside], number))
    assert set().union(*({f"L{i}" for i in range(100)} - part for part in seen)) == set(lesions)


def test_smoothed_prior() -> None:
    np.testing.assert_allclose(np.exp(smoothed_log_prior([7, 0, 1])), [8 / 11, 1 / 11, 2 / 11])


def test_the_error_of_calibrated_answers_goes_to_zero() -> None:
    errors = []
    for n in (100, 1000, 10_000, 100_000):
        found = []
        for seed in range(5):
            scores, labels = drawn(seed, n)
            known = reliability(probabilities(scores), labels)
            found.append((known.ece, known.adaptive_ece))
        errors.append(np.mean(found, axis=0))
    assert (np.diff(errors, axis=0) < 0).all()
    assert (errors[-1] < 0.006).all() and (errors[0] > 0.03).all()


def test_a_temperature_lowers_the_error_of_overconfident_answers() -> None:
    scores, labels = drawn(6, 4000, PRIOR)
    sharp = scores * 3
    half = np.arange(4000) < 2000
    fit = fit_calibration(sharp[half], labels[half], names(2000), np.log(PRIOR))
    answers = sharp[~half].argmax(axis=1)
    before = reliability(probabilities(sharp[~half]), labels[~half], answers)
    after = reliability(fit.probabilities(sharp[~half]), labels[~half], answers)
    assert before.ece > 0.2 and after.ece < 0.04
    assert after.nll < before.nll and after.brier < before.brier
    assert after.accuracy == before.accuracy


def test_tables_by_hand() -> None:
    confidence = [0.05, 0.1, 0.55, 0.6, 1.0, 0.0]
    correct = [False, True, True, False, True, False]
    table = reliability_table(confidence, correct, bins=2)
    assert [row.n for row in table] == [3, 3]
    assert table[0].confidence == pytest.approx(0.05) and table[0].accuracy == pytest.approx(1 / 3)
    assert expected_error(table) == pytest.approx(0.5 * (1 / 3 - 0.05) + 0.5 * (2.15 / 3 - 2 / 3))
    parts = reliability_table(confidence, correct, bins=4, adaptive=True)
    assert [row.n for row in parts] == [2, 2, 1, 1]
    assert [row.low for row in parts] == sorted(row.low for row in parts)
    empty = reliability_table([], [], bins=3)
    assert [row.n for row in empty] == [0, 0, 0] and expected_error(empty) == 0
    sure = reliability(np.eye(3), np.arange(3))
    assert (sure.ece, sure.adaptive_ece, sure.brier, sure.nll) == (0, 0, 0, 0)
    wrong = reliability(np.eye(3)[[1, 2, 0]], np.arange(3))
    assert wrong.ece == 1 and wrong.brier == 2 and np.isfinite(wrong.nll)
