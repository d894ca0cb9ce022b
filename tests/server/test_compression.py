"""A compressed change: close to the change, small, never longer, and refused if it is none."""

import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.classes import HAM10000_CLASSES
from common.compression import (
    QUANTIZATION_STEP,
    TOP_SHARE,
    Compression,
    compress,
    decompress,
)
from common.errors import SiteRefused
from common.flower_records import pack_answer, payload_bytes, unpack_answer
from common.messages import Answer, TrainAsk, TrainReply
from common.qana.config import QanaConfig
from common.qana.fold import fold
from common.qana.networks import initial_weights
from common.qana.weights import NamedWeights, is_statistic
from common.update_reach import UNSENT_REACH, farthest
from server.validation import check_update
from tests.server.test_validation import refusal

METHODS: tuple[Compression, ...] = ("quantization", "top-k")
SHAPES = {
    "stem/kernel": (3, 3, 3, 16),
    "bn/gamma": (16,),
    "bn/moving_mean": (16,),
    "bn/moving_variance": (16,),
    "head/kernel": (40, 7),
    "head/bias": (7,),
}
TRAINED = [name for name in SHAPES if not is_statistic(name)]
ASK = TrainAsk(
    run="r", round=1, phase="float", classes=("mel", "nv", "bcc"), config=QanaConfig(), epochs=1,
    batch=4, learning_rate=1e-2, prior_strength=1.0, proximal=0.0, balance="prior", seed=0,
    compression="quantization",
)  # fmt: skip
EXAMPLES = 40


def weights(seed: int, size: float = 1.0) -> NamedWeights:
    rng = np.random.default_rng(seed)
    found = {n: (size * rng.normal(size=s)).astype(np.float32) for n, s in SHAPES.items()}
    return {n: np.abs(a) if n.endswith("variance") else a for n, a in found.items()}


RECEIVED = weights(0)


def moved(change: NamedWeights) -> NamedWeights:
    return {name: RECEIVED[name] + change[name] for name in RECEIVED}


def through(trained: NamedWeights, method: Compression) -> NamedWeights:
    return decompress(compress(trained, RECEIVED, method), RECEIVED)


# Of any size that a network may have, and with any shape: from all alike to one above all others.
changes = st.tuples(st.integers(0, 999), st.floats(1e-6, 1e3), st.floats(0, 6)).map(
    lambda drawn: {
        name: np.asarray(np.sign(array) * drawn[1] * np.abs(array) ** drawn[2], np.float32)
        for name, array in weights(drawn[0]).items()
    }
)


@given(changes, st.sampled_from(METHODS))
@settings(deadline=None)
def test_what_is_sent_is_never_longer_than_the_change(
    change: NamedWeights, method: Compression
) -> None:
    wanted = moved(change)
    found = through(wanted, method)
    assert list(found) == list(RECEIVED)
    for name in RECEIVED:
        assert found[name].dtype == np.float32 and found[name].shape == SHAPES[name]
        if is_statistic(name):
            np.testing.assert_array_equal(found[name], wanted[name])
            continue
        true = wanted[name].astype(np.float64) - RECEIVED[name]
        sent = found[name].astype(np.float64) - RECEIVED[name]
        rounding = 1e-6 * float(np.abs(wanted[name]).max() + np.abs(RECEIVED[name]).max())
        assert np.abs(sent).max() <= np.abs(true).max() * (1 + 1e-5) + rounding
        length = float(np.linalg.norm(true))
        assert np.linalg.norm(sent) <= length * (1 + 1e-5) + rounding * true.size
        assert np.linalg.norm(true - sent) < length * (1 - 1e-4) + rounding * true.size


@given(changes)
@settings(deadline=None)
def test_quantization_is_off_by_a_step_at_most(change: NamedWeights) -> None:
    wanted = moved(change)
    found = through(wanted, "quantization")
    for name in TRAINED:
        true = wanted[name].astype(np.float64) - RECEIVED[name]
        step = QUANTIZATION_STEP * float(np.sqrt(np.square(true).mean()))
        if np.abs(true).max() > 127 * step:
            continue  # cut off; too large for arrays of this size but for the kernel
        error = true - (found[name].astype(np.float64) - RECEIVED[name])
        rounding = 1e-6 * float(np.abs(wanted[name]).max() + np.abs(RECEIVED[name]).max())
        assert np.abs(error).max() <= step * (1 + 1e-6) + rounding


def test_quantization_leaves_out_a_seventh() -> None:
    rng = np.random.default_rng(0)
    received = {"head/kernel": np.zeros((300, 300), np.float32)}
    change = {"head/kernel": rng.normal(size=(300, 300)).astype(np.float32)}
    found = decompress(compress(change, received, "quantization"), received)
    error = np.linalg.norm(change["head/kernel"] - found["head/kernel"]) / 300
    assert error == pytest.approx(QUANTIZATION_STEP / np.sqrt(12), rel=0.02)


def test_top_k_sends_the_largest_tenth() -> None:
    change = weights(3)
    found = through(moved(change), "top-k")
    for name in TRAINED:
        sent = np.flatnonzero(found[name] != RECEIVED[name])
        n = int(np.ceil(TOP_SHARE * change[name].size))
        largest = np.argsort(np.abs(change[name]).ravel())[-n:]
        assert set(sent) == set(largest)


@pytest.mark.parametrize("method", METHODS)
def test_no_change_and_the_smallest_ones_pass(method: Compression) -> None:
    same = through(RECEIVED, method)
    assert all(np.array_equal(same[name], RECEIVED[name]) for name in RECEIVED)
    zeros = {name: np.zeros_like(array) for name, array in RECEIVED.items()}
    tiny = {name: np.full_like(array, 1e-45) for name, array in zeros.items()}
    assert all(
        np.isfinite(a).all() for a in decompress(compress(tiny, zeros, method), zeros).values()
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_change_that_is_not_finite_is_refused_as_such(method: Compression, value: float) -> None:
    broken = {name: array.copy() for name, array in RECEIVED.items()}
    broken["head/bias"][2] = value
    assert refusal(decompress, compress(broken, RECEIVED, method), RECEIVED) == "not-finite"


# -- bytes ------------------------------------------------------------------------------------


def _adam_like(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Steps of a learning rate each, of changing sign: what Adam's changes come near."""
    return np.asarray(1e-3 * (2.0 * rng.binomial(45, 0.5, shape) - 45), np.float32)


DRAWN = {
    "adam": _adam_like,
    "normal": lambda rng, shape: rng.normal(size=shape),
    "uniform": lambda rng, shape: rng.uniform(-1, 1, shape),
    "two values": lambda rng, shape: rng.choice([-1.0, 1.0], shape),
    "heavy tails": lambda rng, shape: rng.standard_t(3, shape),
    "hardly any": lambda rng, shape: rng.normal(size=shape) * (rng.random(shape) < 0.01),
}


@pytest.fixture(scope="module")
def networks() -> dict[str, NamedWeights]:
    """The default network's weights in both phases; the quantized one has its chain's shapes."""
    floating = initial_weights(QanaConfig(), len(HAM10000_CLASSES), 0)
    quantized = {
        f"{layer.name}/{part}": np.asarray(getattr(layer, part), np.float32)
        for layer in fold(floating, QanaConfig()).layers
        for part in ("kernel", "bias")
    }
    return {"float": floating, "qat": quantized}


@pytest.mark.parametrize("phase", ["float", "qat"])
@pytest.mark.parametrize("drawn", DRAWN)
@pytest.mark.parametrize("method", METHODS)
def test_a_reply_takes_an_eighth_of_the_bytes_whatever_the_change(
    method: Compression, drawn: str, phase: str, networks: dict[str, NamedWeights]
) -> None:
    received = networks[phase]
    rng = np.random.default_rng(1)
    trained = {
        name: (array + 0.01 * DRAWN[drawn](rng, array.shape)).astype(np.float32)
        for name, array in received.items()
    }
    reply = TrainReply(examples=2891, loss=0.123456789, seconds=17.123456).model_dump_json()
    plain = payload_bytes(pack_answer(Answer(reply, arrays=trained)))
    sent = pack_answer(Answer(reply, arrays=compress(trained, received, method)))
    assert payload_bytes(sent) <= plain / 8
    found = decompress(unpack_answer(sent).arrays, received)
    assert {n: a.shape for n, a in found.items()} == {n: a.shape for n, a in received.items()}


# -- replies that are none ----------------------------------------------------------------------


GOOD = compress(moved(weights(1, 1e-2)), RECEIVED, "quantization")
LEVELS = zlib.decompress(GOOD["levels"].tobytes())


def with_levels(content: bytes) -> dict[str, NDArray[Any]]:
    return {**GOOD, "levels": np.frombuffer(content, np.uint8)}


def bomb() -> bytes:
    return zlib.compress(bytes(50_000_000), 9)


def dictionary() -> bytes:
    stream = zlib.compressobj(zdict=b"secret")
    return stream.compress(LEVELS) + stream.flush()


BAD = {
    "the weights themselves": (moved(weights(1)), "names"),
    "nothing": ({}, "names"),
    "a name too many": ({**GOOD, "more": np.zeros(1, np.float32)}, "names"),
    "a name missing": ({"levels": GOOD["levels"], "scales": GOOD["scales"]}, "names"),
    "levels of another type": ({**GOOD, "levels": GOOD["levels"].view(np.int8)}, "type"),
    "levels in two dimensions": ({**GOOD, "levels": GOOD["levels"][None]}, "shape"),
    "scales of another type": ({**GOOD, "scales": GOOD["scales"].astype(np.float64)}, "type"),
    "another byte order": ({**GOOD, "scales": GOOD["scales"].astype(">f4")}, "type"),
    "text": ({**GOOD, "statistics": np.array(["a"] * 32)}, "type"),
    "objects": ({**GOOD, "statistics": np.array([None] * 32)}, "type"),
    "a scale too few": ({**GOOD, "scales": GOOD["scales"][1:]}, "shape"),
    "a scale too many": ({**GOOD, "scales": np.repeat(GOOD["scales"], 2)}, "shape"),
    "one scale for all": ({**GOOD, "scales": GOOD["scales"][0]}, "shape"),
    "statistics too few": ({**GOOD, "statistics": GOOD["statistics"][:-1]}, "shape"),
    "a scale that is NaN": ({**GOOD, "scales": GOOD["scales"] * np.float32(np.nan)}, "not-finite"),
    "an infinite scale": ({**GOOD, "scales": GOOD["scales"] * np.float32(np.inf)}, "not-finite"),
    "a negative scale": ({**GOOD, "scales": -GOOD["scales"]}, "malformed"),
    "no stream": (with_levels(b"no stream"), "malformed"),
    "an empty stream": (with_levels(b""), "malformed"),
    "a stream cut off": (with_levels(GOOD["levels"].tobytes()[:-1]), "malformed"),
    "a stream without its end": (with_levels(GOOD["levels"].tobytes()[:-10]), "malformed"),
    "a stream with more behind": (with_levels(GOOD["levels"].tobytes() + b"x"), "malformed"),
    "a level too few": (with_levels(zlib.compress(LEVELS[1:])), "malformed"),
    "a level too many": (with_levels(zlib.compress(LEVELS + b"\0")), "malformed"),
    "a bomb": (with_levels(bomb()), "malformed"),
    "a stream with a dictionary": (with_levels(dictionary()), "malformed"),
}  # fmt: skip


def reply(arrays: dict[str, Any]) -> Answer:
    text = TrainReply(examples=EXAMPLES, loss=0.5, seconds=1.0).model_dump_json()
    return Answer(text, arrays=arrays)


def test_a_good_one_is_taken() -> None:
    _, found = check_update(reply(GOOD), RECEIVED, ASK, EXAMPLES)
    assert list(found) == list(RECEIVED)


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_compressed_change_is_refused(case: str) -> None:
    arrays, code = BAD[case]
    assert refusal(check_update, reply(arrays), RECEIVED, ASK, EXAMPLES) == code


def test_a_compressed_change_that_nobody_asked_for_is_refused() -> None:
    plain = ASK.model_copy(update={"compression": "none"})
    assert refusal(check_update, reply(GOOD), RECEIVED, plain, EXAMPLES) == "names"


def test_a_bomb_takes_no_memory() -> None:
    arrays = with_levels(bomb())
    tracemalloc.start()
    try:
        with pytest.raises(SiteRefused):
            decompress(arrays, RECEIVED)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("scale", [3e38, 1e30])
def test_weights_beyond_all_numbers_are_refused(scale: float) -> None:
    arrays = {**GOOD, "scales": np.full_like(GOOD["scales"], scale)}
    code = refusal(check_update, reply(arrays), RECEIVED, ASK, EXAMPLES)
    assert code in ("not-finite", "too-far")


def test_how_far_a_weight_may_move_holds_for_what_is_sent() -> None:
    reach = farthest(ASK, EXAMPLES)
    for part, code in ((1 + UNSENT_REACH, ""), ((1 + UNSENT_REACH) * 1.01, "too-far")):
        scales = GOOD["scales"].copy()
        first = np.frombuffer(LEVELS, np.int8)[: RECEIVED["stem/kernel"].size]
        scales[0] = part * reach / np.abs(first).max()
        arrays = {**GOOD, "scales": scales}
        if code:
            assert refusal(check_update, reply(arrays), RECEIVED, ASK, EXAMPLES) == code
        else:
            check_update(reply(arrays), RECEIVED, ASK, EXAMPLES)


def test_statistics_are_looked_at_as_in_any_update() -> None:
    for value, code in ((1e5, "too-large"), (np.nan, "not-finite"), (-1.0, "negative-variance")):
        statistics = GOOD["statistics"].copy()
        statistics[-1] = value
        arrays = {**GOOD, "statistics": statistics}
        assert refusal(check_update, reply(arrays), RECEIVED, ASK, EXAMPLES) == code


@given(position=st.integers(0, 10**6), value=st.integers(0, 255))
@settings(deadline=None)
def test_a_damaged_byte_is_refused_or_gives_weights(position: int, value: int) -> None:
    content = bytearray(GOOD["levels"].tobytes())
    content[position % len(content)] = value
    try:
        found = decompress(with_levels(bytes(content)), RECEIVED)
    except SiteRefused as error:
        assert error.code == "malformed"
    else:
        assert {n: a.shape for n, a in found.items()} == SHAPES
