"""Neurons between sites: the algebra, and what hostile or broken sets come to."""

import base64

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from common.errors import SiteRefused
from common.neurons import (
    MOST_NEURONS,
    Neurons,
    NeuronSet,
    SharedNeuron,
    from_set,
    packed,
    to_set,
    unpacked,
)
from edge_client.late_classes import MOST_TAKEN, KnownClasses
from server.neuron_exchange import MOST_KEPT, MOST_SENT, check_neurons, collected, merged
from tests.edge_client.test_prototypes import some_spikes

PROGRAM = "a" * 64
SPIKES, WEIGHTS = 32, 12


def neuron(seed: int, code: str = "new", cases: int = 5, threshold: int = 3) -> SharedNeuron:
    rng = np.random.default_rng(seed)
    bits = np.zeros(SPIKES, np.uint8)
    bits[rng.choice(SPIKES, WEIGHTS, replace=False)] = 1
    return SharedNeuron(code=code, connections=packed(bits), threshold=threshold, cases=cases)


def some_set(*neurons: SharedNeuron, program: str = PROGRAM) -> NeuronSet:
    return NeuronSet(program=program, spikes=SPIKES, num_weights=WEIGHTS, neurons=neurons)


def refused(shared: NeuronSet) -> str:
    with pytest.raises(SiteRefused) as refusal:
        check_neurons(shared, PROGRAM, SPIKES, WEIGHTS, ["new", "other"])
    assert refusal.value.code == "neurons"
    return str(refusal.value)


@given(bits=st.lists(st.booleans(), min_size=1, max_size=300))
def test_packing_is_exact(bits: list[bool]) -> None:
    connections = np.array(bits, np.uint8)
    np.testing.assert_array_equal(unpacked(packed(connections), len(bits)), connections)


def test_a_set_holds_what_was_put_in() -> None:
    weights = np.zeros((SPIKES, 2), np.uint8)
    weights[:WEIGHTS] = 1
    given_neurons = {"new": Neurons(weights, np.array([4, -2], np.int32))}
    shared = to_set(given_neurons, {"new": 7}, PROGRAM, WEIGHTS)
    assert shared is not None and shared.payload_bytes() == 2 * (4 + 4)
    again = NeuronSet.model_validate_json(shared.model_dump_json())
    np.testing.assert_array_equal(from_set(again)["new"].weights, weights)
    assert from_set(again)["new"].thresholds.tolist() == [4, -2]
    assert to_set({}, {}, PROGRAM, WEIGHTS) is None


def test_an_honest_set_is_accepted() -> None:
    check_neurons(some_set(neuron(1), neuron(2)), PROGRAM, SPIKES, WEIGHTS, ["new"])


def test_hostile_and_broken_sets_are_refused() -> None:
    assert "another program" in refused(some_set(neuron(1), program="b" * 64))
    assert "does not exchange" in refused(some_set(neuron(1, code="nv")))
    assert "more than" in refused(some_set(*(neuron(n) for n in range(MOST_SENT + 1))))
    assert "threshold" in refused(some_set(neuron(1, threshold=-WEIGHTS - 1)))
    all_ones = packed(np.ones(SPIKES, np.uint8))
    assert "12 connections" in refused(
        some_set(neuron(1).model_copy(update={"connections": all_ones}))
    )
    too_long = base64.b64encode(bytes(SPIKES)).decode()
    for text in (too_long, "", "?", "AAAA"):
        refused(some_set(neuron(1).model_copy(update={"connections": text})))
    wide = some_set(neuron(1)).model_copy(update={"spikes": 64})
    assert "another size" in refused(wide)


def test_a_set_that_is_too_large_is_no_message() -> None:
    with pytest.raises(ValidationError):
        some_set(*(neuron(n) for n in range(MOST_NEURONS + 1)))


def test_the_union_lets_sites_take_turns() -> None:
    sets = {
        "few": some_set(neuron(1, cases=2)),
        "greedy": some_set(*(neuron(n, cases=1000) for n in range(10, 10 + MOST_SENT))),
        "other": some_set(neuron(2, cases=9), neuron(3, code="other")),
    }
    union = merged(sets)
    assert union is not None and union.codes == ("new", "other")
    kept = [n for n in union.neurons if n.code == "new"]
    assert kept == [neuron(10, cases=1000), neuron(2, cases=9), neuron(1, cases=2)]
    assert len(kept) == MOST_KEPT
    assert merged({}) is None


@given(order=st.permutations(["a", "b", "c"]))
def test_the_union_does_not_depend_on_who_answers_first(order: list[str]) -> None:
    sets = {site: some_set(neuron(ord(site)), neuron(9)) for site in order}
    assert merged(sets) == merged(dict(sorted(sets.items())))


def test_equal_neurons_count_once() -> None:
    union = merged({"a": some_set(neuron(1)), "b": some_set(neuron(1))})
    assert union is not None and len(union.neurons) == 1


def test_refused_sites_do_not_spoil_the_union() -> None:
    sent = {"honest": some_set(neuron(1)), "hostile": some_set(neuron(2, code="nv")), "none": None}
    union, left_out = collected(sent, PROGRAM, SPIKES, ["new"])
    assert union == some_set(neuron(1)) and set(left_out) == {"hostile"}


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), threshold=st.integers(-24, 24))
def test_a_foreign_neuron_takes_few_cases(seed: int, threshold: int) -> None:
    """Whatever comes, together it wins at most the share of a site's own exemplars."""
    spikes, labels = some_spikes(seed, 4)
    known = KnownClasses.of(spikes, labels, 4, 24)
    hostile = Neurons(known.neurons.weights, np.full(4, threshold, np.int32))
    kept = known.limit(hostile)
    won = kept.answers(spikes) > known.best[:, None]
    counts = np.bincount(labels)
    share = (won.any(axis=1) / counts[labels]).sum() / 4
    assert share <= MOST_TAKEN + 1e-9
