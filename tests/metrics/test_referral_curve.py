"""The curve of accuracy over the share of cases that goes to a person."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from common.calibration import probabilities
from common.referral_curve import SHARES, ReferralCurve, curve_of_counts, referral_curve
from common.score_counts import ScoreCounts

seeds = st.integers(0, 2**32 - 1)


def cases(seed: int, n: int, skill: float = 1.5):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    labels = rng.choice(4, size=n, p=[0.1, 0.1, 0.2, 0.6])
    logits = rng.normal(size=(n, 4))
    logits[np.arange(n), labels] += skill
    shares = probabilities(logits)
    return logits, shares.max(axis=1), shares.argmax(axis=1), labels


def names(n: int, images: int = 1) -> list[str]:
    return [f"L{i // images}" for i in range(n)]


def values(curve: ReferralCurve) -> list[float]:
    found = [estimate.value for estimate in curve.accuracy]
    assert all(value is not None for value in found)
    return [float(value) for value in found if value is not None]


@given(seeds, st.integers(20, 200))
@settings(max_examples=20)
def test_nothing_referred_is_the_accuracy(seed: int, n: int) -> None:
    _, confidence, answers, labels = cases(seed, n)
    curve = referral_curve(confidence, answers, labels, names(n), draws=20)
    assert curve.shares == SHARES and SHARES[0] == 0 and SHARES[-1] == 0.5
    assert curve.accuracy[0].value == pytest.approx((answers == labels).mean())
    assert curve.balanced_accuracy[0].value == pytest.approx(
        balanced_accuracy_score(labels, answers)
    )
    left = [estimate.n for estimate in curve.accuracy]
    assert left == sorted(left, reverse=True) and left[0] == n and left[-1] == round(n / 2)
    for estimate in (*curve.accuracy, *curve.balanced_accuracy, curve.accuracy_area):
        assert estimate.value is not None
        assert estimate.low is not None and estimate.high is not None
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    json.dumps(curve.to_json(), allow_nan=False)


@given(seeds)
@settings(max_examples=20)
def test_whole_cases_are_counted_directly(seed: int) -> None:
    _, confidence, answers, labels = cases(seed, 100)
    curve = referral_curve(confidence, answers, labels, names(100), draws=2)
    order = np.argsort(-confidence)
    for share, accuracy, balanced in zip(
        SHARES, curve.accuracy, curve.balanced_accuracy, strict=True
    ):
        left = order[: round((1 - share) * 100)]
        assert accuracy.n == len(left)
        assert accuracy.value == pytest.approx((answers == labels)[left].mean())
        recalls = [(answers == k)[left][labels[left] == k].mean() for k in np.unique(labels[left])]
        assert balanced.value == pytest.approx(np.mean(recalls))
        missing = len(np.unique(labels)) - len(recalls)
        assert bool(balanced.note) == (missing > 0)


def test_an_oracle_refers_its_mistakes_first() -> None:
    _, _, answers, labels = cases(0, 400, skill=0.8)
    correct = answers == labels
    wrong = 1 - correct.mean()
    found = values(referral_curve(correct, answers, labels, names(400), draws=2))
    assert found == sorted(found)
    for share, value in zip(SHARES, found, strict=True):
        assert value == pytest.approx(min(1.0, correct.mean() / (1 - share)))
    assert wrong > 0.2
    never = values(referral_curve(np.zeros(400), answers, labels, names(400), draws=2))
    assert never == pytest.approx([correct.mean()] * len(SHARES))  # equal: any is as good


def test_the_order_of_cases_is_nothing() -> None:
    _, confidence, answers, labels = cases(1, 150)
    tied = np.round(confidence, 1)
    lesions = names(150, 3)
    shuffled = np.random.default_rng(1).permutation(150)
    first = referral_curve(tied, answers, labels, lesions, draws=5)
    second = referral_curve(
        tied[shuffled], answers[shuffled], labels[shuffled], [lesions[i] for i in shuffled], draws=5
    )
    assert values(first) == pytest.approx(values(second))


def test_lesions_of_many_images_make_wider_intervals() -> None:
    _, confidence, answers, labels = cases(2, 100)
    many = [np.repeat(each, 6) for each in (confidence, answers, labels)]
    as_lesions = referral_curve(*many, names(600, 6), seed=3).accuracy[0]
    as_images = referral_curve(*many, names(600), seed=3).accuracy[0]
    widths = [float(e.high or 0) - float(e.low or 0) for e in (as_lesions, as_images)]
    assert widths[0] == pytest.approx(widths[1] * np.sqrt(6), rel=0.15)
    again = referral_curve(*many, names(600, 6), seed=3).accuracy[0]
    assert again == as_lesions


def test_few_cases_and_no_mistakes() -> None:
    few = referral_curve([0.5] * 4, [0] * 4, [0] * 4, names(4))
    assert few.accuracy[0].note == "too few cases (4 of 5)" and few.accuracy_area.value is None
    six = referral_curve([0.5] * 6, [0, 1] * 3, [0, 1] * 3, names(6), draws=50)
    assert six.accuracy[-1].note == "too few cases (3 of 5)"
    assert six.accuracy[0].value == 1 and (six.accuracy[0].low or 1) < 0.7
    json.dumps(few.to_json(), allow_nan=False)


@given(seeds, st.integers(200, 400))
@settings(max_examples=20)
def test_counts_tell_the_curve_of_confident_answers(seed: int, n: int) -> None:
    logits, confidence, answers, labels = cases(seed, n, skill=3.0)
    found = curve_of_counts(ScoreCounts.from_logits(logits, labels))
    direct = referral_curve(confidence, answers, labels, names(n), draws=2).accuracy
    assert found[0].value == pytest.approx((answers == labels).mean())
    confident = (confidence > 0.5).sum()
    for share, counted, exact in zip(SHARES, found, direct, strict=True):
        assert counted.n == exact.n and counted.value is not None and exact.value is not None
        # A bin of the histogram holds a few cases, whose order counts do not tell.
        assert counted.value == pytest.approx(exact.value, abs=0.04)
        assert bool(counted.note) == (share > 0 and counted.n > confident)


def test_counts_of_undecided_answers_are_a_line() -> None:
    labels = np.arange(100) % 4
    found = curve_of_counts(ScoreCounts.from_logits(np.zeros((100, 4)), labels))
    assert [estimate.value for estimate in found] == pytest.approx([0.25] * len(SHARES))
    assert [estimate.note for estimate in found] == ["", *["interpolated"] * 10]
    halves = curve_of_counts(ScoreCounts.from_logits(np.zeros((100, 2)), labels % 2))
    assert [estimate.value for estimate in halves] == pytest.approx([0.5] * len(SHARES))
    assert curve_of_counts(ScoreCounts.zeros(3))[0].value is None
