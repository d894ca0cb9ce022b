"""What a site's update counts by."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.site_weights import PRIOR_CASES, weights_by_class
from tests.support.hostile import run_with
from tests.support.tiny_run import create_tiny, record_of, state_of

cases_of = st.lists(st.integers(1, 5000), min_size=1, max_size=6)
counted = st.lists(st.lists(st.integers(0, 300), min_size=3, max_size=3), min_size=6, max_size=6)


def named(values: list[Any]) -> dict[str, Any]:
    return {f"site-{n}": value for n, value in enumerate(values)}


@given(cases_of, counted)
def test_weights_are_shares(cases: list[int], counts: list[list[int]]) -> None:
    found = weights_by_class(named(cases), named(counts))
    assert list(found) == list(named(cases))
    assert sum(found.values()) == pytest.approx(1)
    assert all(weight > 0 for weight in found.values())


@given(cases_of)
def test_without_counts_they_are_by_cases(cases: list[int]) -> None:
    shares = [n / sum(cases) for n in cases]
    for counts in ({}, named([[0, 0, 0]] * len(cases))):
        found = weights_by_class(named(cases), counts)
        assert list(found.values()) == pytest.approx(shares)


@given(cases_of, st.lists(st.integers(1, 40), min_size=2, max_size=4))
def test_sites_of_like_mixtures_count_by_cases(cases: list[int], mixture: list[int]) -> None:
    found = weights_by_class(named(cases), named([mixture] * len(cases)))
    assert list(found.values()) == pytest.approx([n / sum(cases) for n in cases])


def test_who_has_a_rare_class_counts_for_it() -> None:
    """One site has 900 of the frequent class, the other 90 and all 10 of the rare one."""
    cases = {"large": 900, "rare": 100}
    found = weights_by_class(cases, {"large": [9000, 0], "rare": [9000, 1000]})
    assert found["large"] == pytest.approx((900 / 990 + 0) / 2, abs=0.03)
    assert weights_by_class(cases, {})["rare"] == pytest.approx(0.1)


def test_one_lesion_does_not_decide() -> None:
    """A class that one validation lesion is of, at a site of ten cases, is not the site's own."""
    cases = {"large": 1000, "tiny": 10}
    found = weights_by_class(cases, {"large": [100, 0], "tiny": [0, 1]})
    assert PRIOR_CASES == 20 and 0.02 < found["tiny"] < 0.15


def test_sites_that_report_nothing_and_classes_that_came_later() -> None:
    cases = {"a": 100, "b": 100, "silent": 100}
    found = weights_by_class(cases, {"a": [10, 10], "b": [10, 10, 5]})
    assert found["b"] > found["silent"] > found["a"]
    assert found["silent"] == pytest.approx(1 / 3, abs=0.02)


def test_a_run_weighs_its_sites_by_what_they_report(tmp_path: Any) -> None:
    folder = create_tiny(tmp_path, float_rounds=2, qat_rounds=0)
    run_with(folder)
    state, record = state_of(folder), record_of(folder)
    assert state is not None
    for result in (r for r in record.site_results if r.step == "evaluate" and r.round == 2):
        confusion = result.result["global"]["confusion"]
        assert state.class_counts[result.site] == [sum(row) for row in confusion]
