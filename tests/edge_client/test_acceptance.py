import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from edge_client.acceptance import balanced_accuracy, loss_of_recall

CODES = st.lists(st.sampled_from(["mel", "nv", "df"]), min_size=1, max_size=40)


@given(CODES, st.integers(0, 2**32 - 1))
def test_balanced_accuracy_is_scikit_learns(codes: list[str], seed: int) -> None:
    hits = np.random.default_rng(seed).random(len(codes)) < 0.6
    predicted = [code if hit else f"not {code}" for code, hit in zip(codes, hits, strict=True)]
    with np.testing.suppress_warnings() as sup:
        sup.filter(UserWarning)  # it warns of predicted classes that are none of the true ones
        assert balanced_accuracy(hits, codes) == pytest.approx(
            balanced_accuracy_score(codes, predicted)
        )


@given(CODES, st.integers(0, 2**32 - 1))
def test_the_loss_is_the_difference_of_balanced_accuracies(codes: list[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    new, old = rng.random(len(codes)) < 0.5, rng.random(len(codes)) < 0.7
    loss, error = loss_of_recall(new, old, codes)
    a, b = balanced_accuracy(old, codes), balanced_accuracy(new, codes)
    assert a is not None and b is not None
    assert loss == pytest.approx(a - b)
    assert error == loss_of_recall(old, new, codes)[1]
    assert loss_of_recall(new, new, codes) == (0.0, 0.0)


def test_one_class_is_mcnemars_test() -> None:
    old = np.array([True] * 9 + [False] * 2 + [True] * 20)
    new = np.array([False] * 9 + [True] * 2 + [True] * 20)
    loss, error = loss_of_recall(new, old, ["mel"] * len(old))
    assert (loss / error) ** 2 == pytest.approx((9 - 2) ** 2 / (9 + 2))


def test_equally_good_programs_are_told_apart_by_chance_one_time_in_twenty() -> None:
    rng = np.random.default_rng(3)
    codes = ["nv"] * 120 + ["mel"] * 30 + ["bkl"] * 20
    refused = 0
    for _ in range(2000):
        ease = rng.random(len(codes))
        new, old = rng.random(len(codes)) < ease, rng.random(len(codes)) < ease
        loss, error = loss_of_recall(new, old, codes)
        refused += loss > 1.645 * error
    assert 0.03 < refused / 2000 < 0.07


def test_a_single_rare_case_is_no_evidence() -> None:
    codes = ["nv"] * 50 + ["vasc"]
    old = np.ones(51, bool)
    new = old.copy()
    new[-1] = False
    loss, error = loss_of_recall(new, old, codes)
    assert loss == pytest.approx(0.5) and loss < 1.645 * error


def test_no_cases_have_no_accuracy() -> None:
    assert balanced_accuracy(np.zeros(0, bool), []) is None
