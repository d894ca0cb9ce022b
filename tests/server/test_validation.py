"""Replies that must not be believed: each is refused with its own code."""

import io
import json
from typing import Any, get_args

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from hypothesis import given
from hypothesis import strategies as st

from common.classes import HAM10000_CLASSES
from common.errors import SiteRefused
from common.flower_records import from_array_record, pack_answer, unpack_answer
from common.messages import PROTOCOL, Answer, HandshakeReply, SiteCode, TrainAsk, TrainReply
from common.qana.config import QanaConfig
from common.qana.network import BOUND
from common.qana.weights import NamedWeights
from common.score_counts import ScoreCounts
from common.update_reach import ADAM_REACH, farthest
from server.validation import (
    check_deployment,
    check_evaluation,
    check_final,
    check_handshake,
    check_update,
    outlying_statistics,
    parsed,
)

SHAPES = {"head/kernel": (3, 2), "head/bias": (2,), "bn/moving_variance": (3,)}
CODES, N_CLASSES, LAYERS = ("mel", "nv", "bcc"), 3, ["stem", "spikes"]
SECRET = "Patient Mueller, born 1950"


def arrays(**changed: Any) -> dict[str, Any]:
    good: dict[str, Any] = {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()}
    return {**good, **{name.replace("__", "/"): value for name, value in changed.items()}}


CURRENT = arrays()
ASK = TrainAsk(
    run="r", round=1, phase="float", classes=("mel", "nv", "bcc"), config=QanaConfig(), epochs=2,
    batch=4, learning_rate=1e-3, prior_strength=1.0, proximal=0.0, balance="prior", seed=0,
)  # fmt: skip
REACH = 7.3e-3 * 2 * 3  # ten cases, in batches of four, twice


def update(sent: dict[str, Any] | None = None, **reply: Any) -> Answer:
    text = json.dumps({"examples": 10, "loss": 0.5, "seconds": 1.0, **reply})
    return Answer(text, arrays=arrays() if sent is None else sent)


def filled(name: str, value: float) -> dict[str, Any]:
    changed = arrays()
    changed[name][0] = value
    return changed


def without(name: str) -> dict[str, Any]:
    return {n: a for n, a in arrays().items() if n != name}


def refusal(check: Any, *arguments: Any) -> str:
    with pytest.raises(SiteRefused) as caught:
        check(*arguments)
    assert SECRET not in str(caught.value) and "\n" not in str(caught.value)
    return caught.value.code


BAD_UPDATES = {
    "a NaN": (update(filled("head/bias", np.nan)), "not-finite"),
    "an infinity": (update(filled("head/bias", -np.inf)), "not-finite"),
    "a huge value": (update(filled("head/kernel", 1e9)), "too-far"),
    "a huge variance": (update(filled("bn/moving_variance", 1e5)), "too-large"),
    "a wrong shape": (update(arrays(head__bias=np.ones(3, np.float32))), "shape"),
    "a missing name": (update(without("head/bias")), "names"),
    "no arrays": (update({}), "names"),
    "one name too many": (update(arrays(extra=np.ones(1, np.float32))), "names"),
    "float64": (update(arrays(head__bias=np.ones(2))), "type"),
    "another byte order": (update(arrays(head__bias=np.ones(2, ">f4"))), "type"),
    "text": (update(arrays(head__bias=np.array(["a", "b"]))), "type"),
    "a step too far": (update(filled("head/kernel", 1 + REACH * 1.01)), "too-far"),
    "a step too far back": (update(filled("head/bias", 1 - REACH * 1.01)), "too-far"),
    "more cases than it has": (update(examples=121), "counts"),
    "a negative variance": (update(filled("bn/moving_variance", -1e-3)), "negative-variance"),
    "no examples": (update(examples=0), "malformed"),
    "negative examples": (update(examples=-5), "malformed"),
    "absurdly many examples": (update(examples=10**30), "malformed"),
    "a loss that is none": (update(loss=float("nan")), "malformed"),
    "seconds without end": (update(seconds=float("inf")), "malformed"),
    "no JSON": (Answer(SECRET, arrays=arrays()), "malformed"),
    "half a JSON": (Answer('{"examples": 10, "loss"', arrays=arrays()), "malformed"),
    "a list": (Answer("[1, 2]", arrays=arrays()), "malformed"),
    "nothing": (Answer(), "malformed"),
    "a field too many": (update(**{SECRET: 1}), "malformed"),
    "an error code": (Answer(error="data-unreadable"), "data-unreadable"),
    "text as an error": (Answer(error=SECRET), "malformed"),
    "one word as an error": (Answer(error="Mueller"), "malformed"),
}


def test_a_good_update_is_taken() -> None:
    reply, found = check_update(update(), CURRENT, ASK, 10)
    assert reply.examples == 10 and set(found) == set(SHAPES)
    check_update(update(filled("head/kernel", 1 + REACH)), CURRENT, ASK, 10)
    check_update(update(filled("bn/moving_variance", 50.0)), CURRENT, ASK, 10)


def test_adam_cannot_step_further_than_is_allowed() -> None:
    # After quiet steps the gradients that reach furthest rise as (beta1 / beta2)^-k.
    rising = (0.999 / 0.9) ** np.arange(200.0)
    furthest = 0.0
    for gradients in (np.concatenate([np.zeros(5000), rising]), rising, np.ones(200)):
        m = v = 0.0
        for t, gradient in enumerate(gradients, 1):
            m = 0.9 * m + 0.1 * gradient
            v = 0.999 * v + 0.001 * gradient**2
            if v:
                step = (m / (1 - 0.9**t)) / np.sqrt(v / (1 - 0.999**t))
                furthest = max(furthest, step)
    assert 0.95 * ADAM_REACH < furthest < ADAM_REACH
    one_step = ASK.model_copy(update={"epochs": 1})
    assert farthest(one_step, examples=1) > furthest * ASK.learning_rate


def test_statistics_unlike_all_others_are_an_outlier_whatever_the_steps() -> None:
    rng = np.random.default_rng(0)
    current = {"bn/moving_mean": np.zeros(50, np.float32), "k": np.ones(3, np.float32)}
    current["bn/moving_variance"] = np.ones(50, np.float32)

    def after(n_steps: int, size: float) -> tuple[NamedWeights, int]:
        kept = 0.9**n_steps
        seen = {"bn/moving_mean": rng.normal(size=50), "bn/moving_variance": 4 + rng.random(50)}
        moved = {n: kept * current[n] + (1 - kept) * size * a for n, a in seen.items()}
        return {"k": current["k"], **{n: a.astype(np.float32) for n, a in moved.items()}}, n_steps

    honest = {"a": after(1, 1.0), "b": after(5, 1.5), "c": after(300, 0.5), "d": after(40, 3.0)}
    assert outlying_statistics(honest, current) == set()
    assert outlying_statistics({**honest, "b": after(5, 100.0)}, current) == {"b"}
    # One with far more steps than all others has nobody to be compared with.
    assert outlying_statistics({**honest, "e": after(5000, 100.0)}, current) == set()
    two = {"a": honest["a"], "b": after(5, 100.0)}
    assert outlying_statistics(two, current) == set()  # who is right cannot be told


@pytest.mark.parametrize("case", BAD_UPDATES)
def test_a_bad_update_is_refused(case: str) -> None:
    answer, code = BAD_UPDATES[case]
    assert refusal(check_update, answer, CURRENT, ASK, 10) == code


@pytest.mark.parametrize("code", get_args(SiteCode))
def test_a_sites_own_codes_are_passed_on(code: str) -> None:
    assert refusal(parsed, Answer(error=code), TrainReply) == code


@given(st.text())
def test_no_text_of_a_site_comes_through(text: str) -> None:
    # The mark tells the site's text from ours, which may have the same words.
    mark = "\N{SNOWMAN}"
    for sent in (text, f"{mark}{text}", f"{text}{mark}"):
        for answer in (Answer(sent), Answer(error=sent), update(**{sent or "x": sent})):
            try:
                check_update(answer, CURRENT, ASK, 10)
            except SiteRefused as error:
                assert error.code in ("malformed", *get_args(SiteCode))
                assert mark not in str(error)


# -- arrays that cannot be decoded ------------------------------------------------------------


def _received(data: bytes, stype: str = "numpy.ndarray") -> dict[str, Any]:
    return from_array_record(ArrayRecord({"a": Array("float32", (1,), stype, data)}))


def _npz() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, a=np.ones(3))
    return stream.getvalue()


def _huge() -> bytes:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999,), }"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def _pickled() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([{}], dtype=object))
    return stream.getvalue()


@pytest.mark.parametrize(
    "data", [b"", b"garbage", _npz(), _huge(), _pickled(), b"\x93NUMPY\x01\x00\x05\x00{{{{{"]
)
def test_garbage_is_no_array(data: bytes) -> None:
    assert refusal(_received, data) == "malformed"


def test_another_serialization_is_refused() -> None:
    assert refusal(_received, b"", "pickle") == "malformed"


@given(st.binary(max_size=80))
def test_any_bytes_are_an_array_or_refused(data: bytes) -> None:
    try:
        assert isinstance(_received(b"\x93NUMPY" + data)["a"], np.ndarray)
    except SiteRefused as error:
        assert error.code == "malformed"


def test_an_answer_survives_flowers_records() -> None:
    found = unpack_answer(pack_answer(update()))
    assert found.reply == update().reply and set(found.arrays) == set(SHAPES)


def test_a_reply_of_another_form_is_refused() -> None:
    content = pack_answer(Answer("{}"))
    del content["answer"]
    assert refusal(unpack_answer, content) == "malformed"


# -- evaluation ---------------------------------------------------------------------------------

COUNTS = ScoreCounts.from_logits(np.eye(N_CLASSES), np.arange(N_CLASSES)).to_json()
RANGES = (1.0, 2.0, 0.0)


def evaluation(**changed: Any) -> Answer:
    good = {"counts": COUNTS, "ranges": RANGES, "calibration_images": 5, "seconds": 0.1}
    return Answer(json.dumps({**good, **changed}))


def _counts(**changed: Any) -> dict[str, Any]:
    return {**COUNTS, **changed}


BAD_EVALUATIONS = {
    "counts that do not add up": (
        evaluation(counts=_counts(confusion=[[5, 0, 0], [0, 1, 0], [0, 0, 1]])),
        "counts",
    ),
    "a negative count": (
        evaluation(counts=_counts(confusion=[[-1, 0, 0], [0, 1, 0], [0, 0, 1]])),
        "counts",
    ),
    "a fraction of a case": (
        evaluation(counts=_counts(confusion=[[0.5, 0, 0], [0, 1, 0], [0, 0, 1]])),
        "counts",
    ),
    "text as a count": (evaluation(counts=_counts(confusion=SECRET)), "counts"),
    "no confusion": (evaluation(counts={}), "counts"),
    "counts of another name": (evaluation(counts={SECRET: 1}), "counts"),
    "an unknown class": (
        evaluation(counts=ScoreCounts.from_logits(np.eye(4), np.arange(4)).to_json()),
        "unknown-class",
    ),
    "no ranges": (evaluation(ranges=()), "ranges"),
    "a range too few": (evaluation(ranges=RANGES[1:]), "ranges"),
    "a range above the bound": (evaluation(ranges=(BOUND * 2, 1.0, 0.0)), "ranges"),
    "a range of zero": (evaluation(ranges=(0.0, 1.0, 0.0)), "ranges"),
    "a negative range": (evaluation(ranges=(-1.0, 1.0, 0.0)), "ranges"),
    "a range for the head": (evaluation(ranges=(1.0, 1.0, 1e30)), "ranges"),
    "a range that is no number": (evaluation(ranges=(float("nan"), 1.0, 0.0)), "malformed"),
    "a range next to nothing": (evaluation(ranges=(1e-3, 1.0, 0.0)), "ranges"),
    "ranges of no images": (evaluation(calibration_images=0), "ranges"),
    "ranges of too many images": (evaluation(calibration_images=10**9), "ranges"),
    "more cases than it has": (
        evaluation(counts=ScoreCounts.from_logits(np.eye(3)[[0, 0, 1, 2]], [0, 0, 1, 2]).to_json()),
        "counts",
    ),
}


def test_a_good_evaluation_is_taken() -> None:
    reply, counts = check_evaluation(evaluation(), N_CLASSES, len(RANGES), True, 3)
    assert counts.n == 3 and reply.ranges == RANGES


def test_fewer_classes_are_padded() -> None:
    _, counts = check_evaluation(evaluation(), N_CLASSES + 1, len(RANGES), True, 3)
    assert counts.n_classes == N_CLASSES + 1 and counts.n == 3


@pytest.mark.parametrize("case", BAD_EVALUATIONS)
def test_a_bad_evaluation_is_refused(case: str) -> None:
    answer, code = BAD_EVALUATIONS[case]
    assert refusal(check_evaluation, answer, N_CLASSES, len(RANGES), True, 3) == code


# -- deployment and final -----------------------------------------------------------------------

AGREEMENT = {"images": 3, "equal_predictions": 3, "spikes": 96, "equal_spikes": 95}


def deployment(**changed: Any) -> Answer:
    good = {
        "switched": True,
        "reason": "",
        "in_service": 2,
        "cases_learned": 1,
        "new_classes": [],
        "backend": "software backend (akida 2.19.3)",
        "heads": dict.fromkeys(("akida", "quantized", "chip_before", "chip_after"), COUNTS),
        "old_before": [1, 3],
        "old_after": [2, 3],
        "new_before": [0, 0],
        "new_after": [0, 0],
        "agreement": AGREEMENT,
        "mean_spikes": {"stem": 12.5},
        "seconds": 0.5,
    }
    return Answer(json.dumps({**good, **changed}))


BAD_DEPLOYMENTS = {
    "a version of the future": (deployment(in_service=3), "version"),
    "a head left out": (deployment(heads={"akida": COUNTS}), "counts"),
    "a head of another name": (deployment(heads={SECRET: COUNTS}), "malformed"),
    "more correct than there are": (deployment(old_after=[4, 3]), "counts"),
    "a negative count": (deployment(old_after=[-1, 3]), "malformed"),
    "agreement beyond its total": (
        deployment(agreement={**AGREEMENT, "equal_spikes": 97}),
        "counts",
    ),
    "agreement of other things": (deployment(agreement={SECRET: 1}), "counts"),
    "more held-back cases than it has": (deployment(old_after=[3, 4]), "counts"),
    "agreement of more images": (
        deployment(agreement={**AGREEMENT, "images": 4}),
        "counts",
    ),
    "agreement without end": (
        deployment(agreement={**AGREEMENT, "spikes": 10**4299}),
        "malformed",
    ),
    "spikes without end": (deployment(mean_spikes={"stem": 1e300}), "malformed"),
    "a layer there is not": (deployment(mean_spikes={SECRET: 1.0}), "names"),
    "spikes that are no number": (deployment(mean_spikes={"stem": float("nan")}), "malformed"),
    "text as a reason": (deployment(reason=SECRET), "malformed"),
    "text as a backend": (deployment(backend=SECRET), "malformed"),
    "text as a class": (deployment(new_classes=[SECRET]), "unknown-class"),
    "a class in capitals": (deployment(new_classes=["MEL"]), "unknown-class"),
    "a class that the run has": (deployment(new_classes=[CODES[0]]), "unknown-class"),
    "the same class twice": (deployment(new_classes=["vasc", "vasc"]), "unknown-class"),
    "a flood of classes": (deployment(new_classes=[f"c{i}" for i in range(99)]), "malformed"),
}


def test_a_good_deployment_is_taken() -> None:
    assert check_deployment(deployment(), CODES, 2, LAYERS, 3).in_service == 2
    device = deployment(backend="PCIe/NSoC_v2/0", new_classes=["vasc"])
    assert check_deployment(device, CODES, 2, LAYERS, 3).new_classes == ("vasc",)


@pytest.mark.parametrize("case", BAD_DEPLOYMENTS)
def test_a_bad_deployment_is_refused(case: str) -> None:
    answer, code = BAD_DEPLOYMENTS[case]
    assert refusal(check_deployment, answer, CODES, 2, LAYERS, 3) == code


def final(heads: dict[str, Any]) -> Answer:
    return Answer(json.dumps({"heads": heads, "agreement": AGREEMENT, "seconds": 0.1}))


def test_a_final_report_needs_every_head() -> None:
    heads = dict.fromkeys(("float", "quantized", "akida", "chip", "combined"), COUNTS)
    eight = {**heads, "akida_symmetries": COUNTS, "symmetries": COUNTS}
    assert check_final(final(eight), N_CLASSES, 3, True).heads["symmetries"] == COUNTS
    assert refusal(check_final, final(eight), N_CLASSES, 3) == "counts"  # not asked for
    assert refusal(check_final, final(heads), N_CLASSES, 3, True) == "counts"
    for missing in ("akida_symmetries", "chip", "combined", "symmetries"):
        part = {head: counts for head, counts in eight.items() if head != missing}
        assert refusal(check_final, final(part), N_CLASSES, 3, True) == "counts"
    assert check_final(final(heads), N_CLASSES, 3).heads["akida"] == COUNTS
    del heads["chip"], heads["combined"]  # where no program serves
    assert check_final(final(heads), N_CLASSES, 3).heads["akida"] == COUNTS
    assert refusal(check_final, final(heads), N_CLASSES, 2) == "counts"
    del heads["akida"]
    assert refusal(check_final, final(heads), N_CLASSES, 3) == "counts"


# -- handshake ----------------------------------------------------------------------------------


def handshake(**changed: Any) -> HandshakeReply:
    good = {
        "protocol": PROTOCOL,
        "site": "site-1",
        "classes": HAM10000_CLASSES.codes,
        "model_hash": "abc",
        "fedqana": "0.1.0",
        "n_train": 10,
        "n_validation": 2,
        "n_test": 2,
    }
    return parsed(Answer(json.dumps({**good, **changed})), HandshakeReply)


BAD_HANDSHAKES = {
    "protocol": {"protocol": PROTOCOL + 1},
    "class-map": {"classes": ["nv", "mel"]},
    "model-hash": {"model_hash": "abd"},
    "no-cases": {"n_train": 0},
}


@pytest.mark.parametrize("code", BAD_HANDSHAKES)
def test_a_site_that_does_not_fit_is_refused(code: str) -> None:
    check_handshake(handshake(), HAM10000_CLASSES, "abc")
    reply = handshake(**BAD_HANDSHAKES[code])
    assert refusal(check_handshake, reply, HAM10000_CLASSES, "abc") == code


def test_crops_are_compared_where_both_sides_say_theirs() -> None:
    for reply, run in (("whole", "whole"), ("", "whole"), ("whole", ""), ("", "")):
        check_handshake(handshake(crop=reply), HAM10000_CLASSES, "abc", run)
    with pytest.raises(SiteRefused, match=r"--crop whole.*--crop centre") as error:
        check_handshake(handshake(crop="whole"), HAM10000_CLASSES, "abc", "centre")
    assert error.value.code == "wrong-crop"
    with pytest.raises(SiteRefused, match="malformed"):
        handshake(crop=SECRET)


@pytest.mark.parametrize("name", ["", "../x", SECRET, "a" * 65, "\n"])
def test_a_name_that_is_none_is_malformed(name: str) -> None:
    with pytest.raises(SiteRefused, match="malformed reply"):
        handshake(site=name)
