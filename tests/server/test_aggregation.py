"""Aggregation by Flower's strategies: what is promised of each, on small arrays."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAdam, FedYogi
from hypothesis import given, settings
from hypothesis import strategies as st

from common.qana.weights import NamedWeights
from server.checkpoint import CheckpointFile, RunState
from server.flower import _reply, aggregate
from tests.support.tiny_run import tiny_plan

ROBUST = ("fedmedian", "fedtrimmedavg", "krum")
Updates = dict[str, tuple[NamedWeights, int]]


def _weights(rng: np.random.Generator) -> NamedWeights:
    return {
        "head/kernel": rng.normal(size=(3, 2)).astype(np.float32),
        "head/bias": rng.normal(size=2).astype(np.float32),
        "bn/moving_mean": rng.normal(size=3).astype(np.float32),
        "bn/moving_variance": rng.uniform(0, 2, size=3).astype(np.float32),
    }


@st.composite
def updates(draw: Any, smallest: int = 1) -> Updates:
    """Updates of some sites with random weights and numbers of examples."""
    n_sites = draw(st.integers(smallest, 7))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    counts = draw(st.lists(st.integers(1, 5000), min_size=n_sites, max_size=n_sites))
    return {f"site-{i}": (_weights(rng), n) for i, n in enumerate(counts)}


CURRENT = _weights(np.random.default_rng(0))


@given(updates())
@pytest.mark.parametrize("strategy", ["fedavg", "fedprox"])
def test_fedavg_is_the_mean_weighted_by_examples(strategy: str, given_updates: Updates) -> None:
    combined, memory = aggregate(tiny_plan(strategy=strategy), 1, CURRENT, given_updates, {})
    counts = [n for _, n in given_updates.values()]
    for name in CURRENT:
        stacked = np.stack([w[name].astype(np.float64) for w, _ in given_updates.values()])
        expected = np.average(stacked, axis=0, weights=counts)
        if name != "bn/moving_variance":
            np.testing.assert_allclose(combined[name], expected, rtol=1e-5, atol=1e-6)
    assert memory == {}


@given(st.lists(st.integers(2, 40), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_statistics_are_those_of_all_cases_together(counts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    sites = [rng.normal(rng.normal(0, 3), rng.uniform(0.1, 2), size=(n, 3)) for n in counts]
    found: Updates = {}
    for number, (cases, n) in enumerate(zip(sites, counts, strict=True)):
        statistics = {"bn/moving_mean": cases.mean(axis=0), "bn/moving_variance": cases.var(axis=0)}
        found[f"site-{number}"] = ({**CURRENT, **statistics}, n)
    combined, _ = aggregate(tiny_plan(), 1, CURRENT, found, {})
    together = np.concatenate(sites)
    np.testing.assert_allclose(combined["bn/moving_mean"], together.mean(axis=0), 1e-4, 1e-5)
    np.testing.assert_allclose(combined["bn/moving_variance"], together.var(axis=0), 1e-4, 1e-5)


@given(updates())
@settings(max_examples=20)
@pytest.mark.parametrize("strategy", ["fedavg", "fedadam", *ROBUST])
def test_fixed_statistics_stay_whatever_sites_send(strategy: str, given_updates: Updates) -> None:
    plan = tiny_plan(strategy=strategy, float_rounds=4, freeze_batch_norm=0.5)
    assert [plan.fixes_batch_norm(n) for n in range(1, 5)] == [False, False, True, True]
    combined, _ = aggregate(plan, 3, CURRENT, given_updates, {})
    for name in ("bn/moving_mean", "bn/moving_variance"):
        assert combined[name].tobytes() == CURRENT[name].tobytes()


@given(updates(smallest=2), st.randoms(use_true_random=False))
@settings(max_examples=20)
@pytest.mark.parametrize("strategy", ["fedavg", "fedadam", "fedyogi", *ROBUST])
def test_the_order_of_replies_changes_no_bit(
    strategy: str, given_updates: Updates, random: Any
) -> None:
    plan = tiny_plan(strategy=strategy)
    shuffled = list(given_updates.items())
    random.shuffle(shuffled)
    first, first_memory = aggregate(plan, 1, CURRENT, given_updates, {})
    second, second_memory = aggregate(plan, 1, CURRENT, dict(shuffled), {})
    for one, other in ((first, second), (first_memory, second_memory)):
        assert {n: a.tobytes() for n, a in one.items()} == {
            n: a.tobytes() for n, a in other.items()
        }


@given(updates(smallest=5), st.sampled_from([-1e6, 1e6, 300.0]))
@settings(max_examples=30)
@pytest.mark.parametrize("strategy", ROBUST)
def test_one_hostile_site_cannot_leave_the_range_of_the_others(
    strategy: str, given_updates: Updates, value: float
) -> None:
    hostile = {name: np.full_like(array, abs(value) if "variance" in name else value)
               for name, array in CURRENT.items()}  # fmt: skip
    honest = [weights for weights, _ in given_updates.values()]
    attacked = {**given_updates, "site-x": (hostile, 10**6)}
    combined, _ = aggregate(tiny_plan(strategy=strategy), 1, CURRENT, attacked, {})
    for name in CURRENT:
        stacked = np.stack([weights[name] for weights in honest])
        assert (combined[name] >= stacked.min(axis=0) - 1e-5).all()
        assert (combined[name] <= stacked.max(axis=0) + 1e-5).all()


def test_without_robustness_the_hostile_site_would_win() -> None:
    rng = np.random.default_rng(1)
    given_updates = {f"site-{i}": (_weights(rng), 10) for i in range(5)}
    hostile = {name: np.full_like(array, 1e6) for name, array in CURRENT.items()}
    attacked = {**given_updates, "site-x": (hostile, 10)}
    combined, _ = aggregate(tiny_plan(), 1, CURRENT, attacked, {})
    assert combined["head/bias"].min() > 1e5


@given(updates())
@settings(max_examples=20)
@pytest.mark.parametrize("strategy", ["fedavg", "fedadam", "fedyogi", *ROBUST])
def test_variances_never_become_negative(strategy: str, given_updates: Updates) -> None:
    plan = tiny_plan(strategy=strategy, server_learning_rate=10.0)
    combined, memory = CURRENT, {}
    for round_number in (1, 2, 3):
        combined, memory = aggregate(plan, round_number, combined, given_updates, memory)
        assert combined["bn/moving_variance"].min() >= 0
        assert all(a.dtype == np.float32 and np.isfinite(a).all() for a in combined.values())


@pytest.mark.parametrize(("name", "kind"), [("fedadam", FedAdam), ("fedyogi", FedYogi)])
def test_memory_from_a_checkpoint_equals_keeping_the_strategy(
    name: str, kind: Any, tmp_path: Path
) -> None:
    plan = tiny_plan(strategy=name)
    rng = np.random.default_rng(3)
    rounds = [{f"site-{i}": (_weights(rng), 10 + i) for i in range(3)} for _ in range(4)]
    kept = kind(eta=plan.server_learning_rate)
    file = CheckpointFile(tmp_path / "checkpoint")
    current, memory = CURRENT, {}
    kept_current = {n: a for n, a in CURRENT.items() if "moving" not in n}
    for number, given_updates in enumerate(rounds, 1):
        file.save(RunState(number, "train", plan.classes, current, strategy=memory))
        saved = file.load()
        assert saved is not None
        current, memory = aggregate(plan, number, saved.floating, given_updates, saved.strategy)
        replies = [
            _reply({n: w[n] for n in kept_current}, count) for w, count in given_updates.values()
        ]
        kept.current_arrays = dict(kept_current)
        record, _ = kept.aggregate_train(number, replies)
        kept_current = {str(n): a.numpy() for n, a in record.items()}
        for array_name, array in kept_current.items():
            np.testing.assert_allclose(current[array_name], array, rtol=2e-6, atol=1e-7)
    assert any(n.startswith("m_t:") for n in memory) and any(n.startswith("v_t:") for n in memory)
