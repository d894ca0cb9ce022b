"""A phase ends with the mean of its last rounds' networks."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from common.bundle import FLOAT, load_bundle
from common.qana.weights import NamedWeights
from server.averaging import rounds_averaged, with_next
from server.run_folder import RunFolder
from simulation.sites import NewClass
from tests.support.tiny_run import run_tiny, state_of, tiny_plan

values = st.floats(-1e3, 1e3, width=32)


@given(networks=st.lists(arrays(np.float32, (2, 3), elements=values), min_size=1, max_size=12))
def test_one_after_the_other_is_the_mean(networks: list[np.ndarray]) -> None:
    mean: NamedWeights = {}
    for count, network in enumerate(networks):
        mean = with_next(mean, count, {"a": network})
    assert mean["a"].dtype == np.float32
    expected = np.mean(np.array(networks, np.float64), axis=0)
    np.testing.assert_allclose(mean["a"], expected, rtol=1e-4, atol=1e-2)


def test_networks_that_are_averaged_stay_as_they_are() -> None:
    first, second = {"a": np.zeros(3, np.float32)}, {"a": np.ones(3, np.float32)}
    mean = with_next(with_next({}, 0, first), 1, second)
    assert not first["a"].any() and (second["a"] == 1).all() and (mean["a"] == 0.5).all()


@pytest.mark.parametrize(
    ("share", "rounds", "expected"),
    [
        (0.0, 48, 1),
        (0.25, 48, 12),
        (0.25, 16, 4),
        (0.25, 10, 3),
        (0.25, 14, 4),
        (0.25, 1, 1),
        (1.0, 3, 3),
        (0.01, 10, 1),
    ],
)
def test_how_many_rounds(share: float, rounds: int, expected: int) -> None:
    assert rounds_averaged(share, rounds) == expected


def test_the_last_rounds_of_each_phase() -> None:
    plan = tiny_plan(float_rounds=8, qat_rounds=4, average=0.5)
    assert [n for n in range(1, 13) if plan.averages(n)] == [5, 6, 7, 8, 11, 12]
    assert [n for n in range(1, 13) if plan.ends_phase(n)] == [8, 12]


def floats(folder: Path, version: int) -> NamedWeights:
    return load_bundle(RunFolder(folder).version(version)).weights(FLOAT)


def test_a_run_ends_with_the_mean_of_its_rounds(tmp_path: Path) -> None:
    rounds = {"float_rounds": 3, "qat_rounds": 0}
    data = {"arrivals": 0.0}
    single = run_tiny(tmp_path / "single", data, **rounds, average=0.0)
    mean = run_tiny(tmp_path / "mean", data, **rounds, average=1.0)
    networks = [floats(single, version) for version in (1, 2, 3)]
    for version in (1, 2):  # training goes on from the last network, not from the mean
        found = floats(mean, version)
        assert all(np.array_equal(found[n], networks[version - 1][n]) for n in found)
    found = floats(mean, 3)
    for name in found:
        expected = np.mean([network[name] for network in networks], axis=0)
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-6)
    assert any(not np.array_equal(found[n], networks[2][n]) for n in found)
    state = state_of(mean)
    assert state is not None and not state.mean_network and state.mean_rounds == 0


def test_networks_from_before_a_new_class_are_left_out(tmp_path: Path) -> None:
    """The class is met in round 1, so the mean is of the two rounds that knew it."""
    data = {"new_class": NewClass(code="vasc", round=1, site="site-1")}
    rounds = {"float_rounds": 3, "qat_rounds": 0}
    single = run_tiny(tmp_path / "single", data, **rounds, average=0.0)
    mean = run_tiny(tmp_path / "mean", data, **rounds, average=1.0)
    networks = [floats(single, version) for version in (2, 3)]
    found = floats(mean, 3)
    assert found["head/bias"].shape == (7,)
    for name in found:
        expected = np.mean([network[name] for network in networks], axis=0)
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-6)
