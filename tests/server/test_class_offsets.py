"""Offsets by which a network answers all classes alike."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.answers_by_class import AnswersByClass, answers_by_class
from common.bundle import FLOAT, QUANTIZED, load_bundle
from common.errors import SiteRefused
from common.messages import Answer
from common.qana.networks import network
from edge_client.site import SiteFolder, relabelled
from server.class_offsets import FEWEST, MOST, STEPS, next_offsets
from server.run_folder import RunFolder
from server.validation import FEW, check_balance
from tests.support.hostile import HostileSites, run_with
from tests.support.tiny_run import TINY, create_tiny, record_of, run_tiny, state_of

Floats = NDArray[np.float64]


def drawn(
    seed: int, n_classes: int, spread: float
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits of classes that are told apart more or less well, far from alike in how often."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(n_classes), rng.integers(FEWEST, 200, n_classes))
    logits = rng.normal(size=(len(labels), n_classes)) + rng.normal(0, spread, n_classes)
    logits[np.arange(len(labels)), labels] += rng.uniform(0.5, 3)
    return logits.astype(np.float32), labels


def offsets_of(logits: NDArray[np.float32], labels: NDArray[np.int64], steps: int) -> Floats:
    found = np.zeros(logits.shape[1])
    for _ in range(steps):
        moved = logits + found.astype(np.float32)
        found = next_offsets(found, answers_by_class(moved, labels))
    return found


def answered(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Floats:
    """Mean probability of each class, all classes' cases weighed alike."""
    found = answers_by_class(logits, labels)
    return np.asarray((found.shares / found.counts[:, None]).mean(axis=0))


@given(st.integers(0, 10**6), st.integers(2, 8), st.floats(0, 0.7))
def test_all_classes_are_answered_alike(seed: int, n_classes: int, spread: float) -> None:
    logits, labels = drawn(seed, n_classes, spread)
    offsets = offsets_of(logits, labels, STEPS)
    assert abs(offsets.mean()) < 1e-9 and np.abs(offsets).max() <= MOST
    before, after = answered(logits, labels), answered(logits + offsets.astype("f4"), labels)
    assert np.abs(after - 1 / n_classes).max() < max(0.02, 0.25 * np.abs(before - after).max())
    ended = offsets_of(logits, labels, 60)
    np.testing.assert_allclose(
        answered(logits + ended.astype("f4"), labels), 1 / n_classes, atol=1e-4
    )


@given(st.integers(0, 10**6))
def test_what_was_added_is_taken_away(seed: int) -> None:
    logits, labels = drawn(seed, 5, 0.0)
    added = np.random.default_rng(seed).uniform(-1, 1, 5)
    added -= added.mean()
    plain, moved = (offsets_of(logits + a.astype("f4"), labels, 60) for a in (0 * added, added))
    np.testing.assert_allclose(moved, plain - added, atol=1e-3)


def test_sums_of_sites_are_those_of_all_cases() -> None:
    logits, labels = drawn(3, 4, 1.0)
    parts = np.array_split(np.random.default_rng(0).permutation(len(labels)), 3)
    pooled = AnswersByClass(np.zeros(4, np.int64), np.zeros((4, 4)))
    for part in parts:
        pooled = pooled + answers_by_class(logits[part], labels[part])
    whole = answers_by_class(logits, labels)
    assert pooled.counts.tolist() == whole.counts.tolist() == np.bincount(labels).tolist()
    np.testing.assert_allclose(pooled.shares, whole.shares)
    np.testing.assert_allclose(whole.shares.sum(axis=1), whole.counts)


@given(st.lists(st.integers(0, 30), min_size=2, max_size=6), st.integers(0, 20))
def test_hidden_classes_have_zeros_and_cannot_be_counted(counts: list[int], fewest: int) -> None:
    rng = np.random.default_rng(sum(counts))
    labels = np.repeat(np.arange(len(counts)), counts)
    logits = rng.normal(size=(len(labels), len(counts))).astype(np.float32)
    whole = answers_by_class(logits, labels) if len(labels) else None
    if whole is None:
        return
    told = whole.of_large_classes(fewest)
    kept = told.counts > 0
    assert (told.counts[kept] >= fewest).all() and not told.shares[~kept].any()
    np.testing.assert_array_equal(told.counts[kept], whole.counts[kept])
    np.testing.assert_array_equal(told.shares[kept], whole.shares[kept])
    hidden = (whole.counts - told.counts).sum()
    assert hidden == 0 or hidden >= fewest or not kept.any()
    if whole.counts[whole.counts > 0].min() >= fewest:
        assert hidden == 0


@pytest.mark.parametrize("margin", [6.0, 10.0, 20.0])
def test_a_network_that_is_sure_of_its_cases_gets_sensible_offsets(margin: float) -> None:
    """Nearly all probability is on the true class, so the curvature is nearly 0."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        labels = np.repeat(np.arange(7), rng.integers(FEWEST, 200, 7))
        logits = rng.normal(size=(len(labels), 7)) + rng.normal(0, 0.5, 7)
        logits[np.arange(len(labels)), labels] += margin
        offsets = offsets_of(logits.astype(np.float32), labels, STEPS)
        assert abs(offsets.mean()) < 1e-9
        moved = (logits + offsets).astype(np.float32)
        before, after = answered(logits.astype(np.float32), labels), answered(moved, labels)
        assert np.abs(after - 1 / 7).max() <= np.abs(before - 1 / 7).max() + 1e-9


def test_a_class_with_few_cases_keeps_its_logits_and_moves_no_others() -> None:
    logits, labels = drawn(5, 4, 1.0)
    few = np.concatenate([np.flatnonzero(labels != 3), np.flatnonzero(labels == 3)[: FEWEST - 1]])
    none = np.flatnonzero(labels != 3)
    for steps in (1, STEPS):
        with_few = offsets_of(logits[few], labels[few], steps)
        assert with_few[3] == 0
        np.testing.assert_array_equal(with_few, offsets_of(logits[none], labels[none], steps))
    assert not offsets_of(logits[labels == 0], labels[labels == 0], 3).any()


def test_no_offset_is_beyond_the_limit() -> None:
    """All of a class's cases are said to be answered as another."""
    shares = np.array([[100.0, 0.0], [100.0, 0.0]])
    offsets = np.zeros(2)
    for _ in range(10):
        offsets = next_offsets(offsets, AnswersByClass(np.array([100, 100]), shares))
    assert np.isfinite(offsets).all() and np.abs(offsets).max() <= MOST


@pytest.mark.parametrize(
    ("counts", "shares", "code"),
    [
        ([1, 1], [[1, 0, 0], [0, 1, 0]], "unknown-class"),
        ([1, 1, 0], [[1, 0], [0, 1], [0, 0]], "unknown-class"),
        ([1, 1, 0], [[1, 0, 0], [0, 1, 0]], "counts"),
        ([1, 1, 0], [[2, 0, 0], [0, 1, 0], [0, 0, 0]], "counts"),
        ([1, 1, 0], [[1, 0, 0], [0, 1, 0], [0, 0, 1]], "counts"),
        ([1, 1, 0], [[2, -1, 0], [0, 1, 0], [0, 0, 0]], "malformed"),
        ([10 + FEW, 1, 0], [[10 + FEW, 0, 0], [0, 1, 0], [0, 0, 0]], "counts"),
    ],
)
def test_answers_that_cannot_be_are_refused(
    counts: list[int], shares: list[list[float]], code: str
) -> None:
    good = {"counts": [6, 4, 0], "shares": [[3, 2, 1], [1, 3, 0], [0, 0, 0]], "seconds": 1.0}
    assert check_balance(Answer(json.dumps(good)), 3, 10)[1].counts.tolist() == [6, 4, 0]
    with pytest.raises(SiteRefused) as caught:
        check_balance(Answer(json.dumps({**good, "counts": counts, "shares": shares})), 3, 10)
    assert caught.value.code == code


def test_a_run_ends_each_phase_with_a_head_that_answers_alike(tmp_path: Path) -> None:
    settings = {"float_rounds": 2, "class_offsets": True, "average": 0.0}
    data = {"sites": "dirichlet:3:0.5", "data": "synthetic:200"}
    folder = run_tiny(tmp_path, data, **settings)
    record = record_of(folder)
    assert [e.round for e in record.events if e.kind == "balanced"] == [2, 3]
    asked = {(r.round, r.site) for r in record.site_results if r.step == "balance" and r.accepted}
    assert len(asked) == 2 * len(record.sites)
    homes = sorted(f for f in (folder / "sites").iterdir() if f.is_dir())
    sites = [SiteFolder(home).read() for home in homes]
    for number, phase, part in ((2, "float", FLOAT), (3, "qat", QUANTIZED)):
        bundle = load_bundle(RunFolder(folder).version(number))
        codes = bundle.card.classes
        cases = [relabelled(s.train, s.classes, codes) for s in sites]
        net = network("float" if phase == "float" else "qat", TINY, len(codes))
        net.set_weights(bundle.weights(part))
        labels = np.concatenate([c.labels for c in cases])
        found = answers_by_class(np.concatenate([net.logits(c.images) for c in cases]), labels)
        chosen = np.flatnonzero(found.counts >= FEWEST)
        assert len(chosen) > 3
        means = (found.shares[chosen] / found.counts[chosen, None])[:, chosen]
        answered_there = means.mean(axis=0)
        np.testing.assert_allclose(answered_there, answered_there.mean(), atol=0.02)


def test_a_hostile_site_is_left_out_and_below_the_quorum_the_head_stays(tmp_path: Path) -> None:
    def nonsense(answer: Answer, before: int) -> Answer:
        reply = json.loads(answer.reply)
        reply["shares"][0][0] += 10**6
        return replace(answer, reply=json.dumps(reply))

    found = {}
    for name, bad in (("one", 1), ("three", 3), ("off", 0)):
        settings = {"qat_rounds": 0, "class_offsets": name != "off"}
        folder = create_tiny(tmp_path / name, {"data": "synthetic:200"}, **settings)
        twists = {("balance", f"site-{n}"): nonsense for n in range(1, bad + 1)}
        run_with(folder, HostileSites(twists))
        record, state = record_of(folder), state_of(folder)
        assert record.run.state == "finished" and state is not None
        refused = [
            (r.site, r.step, r.reason.split(":")[0]) for r in record.site_results if r.reason
        ]
        assert refused == [(f"site-{n}", "balance", "counts") for n in range(1, bad + 1)]
        found[name] = state.floating["head/bias"]
        kinds = {e.kind for e in record.events}
        assert ("balanced" in kinds, "not-balanced" in kinds) == (name == "one", name == "three")
    np.testing.assert_array_equal(found["three"], found["off"])
    assert np.abs(found["one"] - found["off"]).max() > 0.01
