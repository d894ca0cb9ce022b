"""What a site's update counts by."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.qana.weights import NamedWeights
from server import rounds
from server.plan import RunPlan
from server.site_weights import FEWEST, MOST, weights_by_class
from tests.support.tiny_run import record_of, run_tiny, state_of

cases_of = st.lists(st.integers(1, 5000), min_size=1, max_size=6)
counted = st.lists(st.lists(st.integers(0, 300), min_size=3, max_size=3), min_size=6, max_size=6)


def named(values: list[Any]) -> dict[str, Any]:
    return {f"site-{n}": value for n, value in enumerate(values)}


@given(cases_of, counted)
def test_weights_are_shares_and_limited(cases: list[int], counts: list[list[int]]) -> None:
    found = weights_by_class(named(cases), named(counts))
    assert list(found) == list(named(cases))
    assert sum(found.values()) == pytest.approx(1)
    for weight, n in zip(found.values(), cases, strict=True):
        assert 0 < weight <= MOST * n / sum(cases) * (1 + 1e-9)


@given(cases_of)
def test_without_counts_they_are_by_cases(cases: list[int]) -> None:
    shares = [n / sum(cases) for n in cases]
    for counts in ({}, named([[0, 0, 0]] * len(cases))):
        found = weights_by_class(named(cases), counts)
        assert list(found.values()) == pytest.approx(shares)


@given(cases_of, st.lists(st.integers(5, 40), min_size=2, max_size=4))
def test_sites_of_like_mixtures_count_by_cases(cases: list[int], mixture: list[int]) -> None:
    found = weights_by_class(named(cases), named([mixture] * len(cases)))
    assert list(found.values()) == pytest.approx([n / sum(cases) for n in cases])


def test_who_has_a_rare_class_counts_for_it() -> None:
    """One site has 600 of the frequent class, the other 300 and all 100 of the rare one."""
    cases = {"large": 600, "rare": 400}
    found = weights_by_class(cases, {"large": [6000, 0], "rare": [3000, 1000]})
    assert found["large"] == pytest.approx((600 / 900 + 0) / 2, abs=0.01)


def test_few_lesions_decide_nothing() -> None:
    cases = {"large": 1000, "tiny": 10}
    found = weights_by_class(cases, {"large": [100, 0], "tiny": [0, FEWEST - 1]})
    assert found["tiny"] == pytest.approx(10 / 1010)


def test_invented_classes_gain_twice_the_share_and_no_more() -> None:
    honest = {f"site-{n}": [120, 40, 15, 10, 10] for n in range(3)}
    cases = {**dict.fromkeys(honest, 2000), "hostile": 100}
    found = weights_by_class(cases, {**honest, "hostile": [0] * 5 + [1000] * 57})
    assert found["hostile"] == pytest.approx(MOST * 100 / 6100)


def test_a_site_that_reports_nothing_has_its_share_of_the_cases() -> None:
    cases = {"common": 100, "rare": 100, "silent": 100}
    found = weights_by_class(cases, {"common": [200, 0], "rare": [0, 20, 5]})
    assert found["silent"] == pytest.approx(1 / 3)
    assert found["rare"] > found["common"]


@pytest.mark.parametrize("by", ["classes", "cases"])
def test_a_run_weighs_its_sites_by_what_they_report(
    by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_weights: dict[int, dict[str, float]] = {}
    counted_until: dict[int, dict[str, list[int]]] = {}
    aggregate = rounds.aggregate

    def watched(
        plan: RunPlan, number: int, current: NamedWeights, updates: Any, memory: NamedWeights
    ) -> Any:
        given_weights[number] = {site: weight for site, (_, weight) in updates.items()}
        return aggregate(plan, number, current, updates, memory)

    monkeypatch.setattr(rounds, "aggregate", watched)
    settings = {"float_rounds": 2, "qat_rounds": 0, "site_weights": by}
    folder = run_tiny(tmp_path, {"sites": "dirichlet:3:0.5"}, **settings)
    state, record = state_of(folder), record_of(folder)
    assert state is not None
    for result in (r for r in record.site_results if r.step == "evaluate"):
        confusion = np.array(result.result["global"]["confusion"])
        counted_until.setdefault(result.round, {})[result.site] = confusion.sum(axis=1).tolist()
    assert state.class_counts == counted_until[2]
    examples = {
        (r.round, r.site): r.result["examples"] for r in record.site_results if r.step == "train"
    }
    cases = [{s: n for (r, s), n in examples.items() if r == number} for number in (1, 2)]
    if by == "cases":
        assert [given_weights[1], given_weights[2]] == cases
        return
    assert given_weights[1] == weights_by_class(cases[0], {})  # nothing was counted yet
    assert given_weights[2] == weights_by_class(cases[1], counted_until[1])
    shares = {site: n / sum(cases[1].values()) for site, n in cases[1].items()}
    assert any(abs(given_weights[2][s] - shares[s]) > 0.01 for s in shares)
