"""Every reply is checked here before anything is done with it.

A reply that fails costs its site the round; `SiteRefused.code` goes into the history, and no
text of the site's does.
"""

import math
from collections.abc import Collection, Mapping
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from common.classes import ClassMap
from common.errors import SiteRefused
from common.messages import (
    PROTOCOL,
    Answer,
    DeployReply,
    EvaluateReply,
    FinalReply,
    HandshakeReply,
    M,
    SiteCode,
    TrainReply,
    parse_reply,
)
from common.metrics import ScoreCounts
from common.qana.network import BOUND

LARGEST_WEIGHT = 1e6
"""A trained weight beyond this is a fault or an attack; float32 sums stay finite below it."""

MOST_CLASSES = 64
"""Of a run, those of all sites together: no site can make the network grow without limit."""

Shapes = Mapping[str, tuple[int, ...]]


def parsed(answer: Answer, form: type[M]) -> M:
    """The reply's message; SiteRefused with the site's own code where it reports an error."""
    if answer.error:
        code = answer.error if answer.error in get_args(SiteCode) else "malformed"
        raise SiteRefused(code, f"the site could not do it ({code})")
    return parse_reply(answer.reply, form)


def check_handshake(reply: HandshakeReply, classes: ClassMap, model_hash: str) -> None:
    """Refuse a site of another protocol, network, or without one of the run's classes."""
    if reply.protocol != PROTOCOL:
        raise SiteRefused(
            "protocol",
            f"speaks protocol {reply.protocol}, this coordinator {PROTOCOL}; install the same "
            "fedqana version on both",
        )
    missing = [code for code in classes.codes if code not in reply.classes]
    if missing:
        raise SiteRefused(
            "class-map", f"its class map lacks {', '.join(missing)}; correct the site's class map"
        )
    if reply.model_hash != model_hash:
        raise SiteRefused(
            "model-hash", "builds another network; install the same fedqana version on both"
        )
    if reply.n_train == 0:
        raise SiteRefused("no-cases", "has no training cases")


def check_update(
    answer: Answer, expected: Shapes
) -> tuple[TrainReply, dict[str, NDArray[np.float32]]]:
    """A training reply with exactly the expected arrays, all finite and of sane size."""
    reply = parsed(answer, TrainReply)
    check_arrays(answer.arrays, expected)
    return reply, answer.arrays


def check_arrays(arrays: Mapping[str, NDArray[np.float32]], expected: Shapes) -> None:
    """Refuse missing or additional names, other shapes or types, and non-finite values."""
    if set(arrays) != set(expected):
        raise SiteRefused("names", "the update's arrays have other names than the model's")
    for name, shape in expected.items():
        array = arrays[name]
        if tuple(array.shape) != tuple(shape):
            raise SiteRefused("shape", f"array {name} has shape {array.shape}, expected {shape}")
        if array.dtype != np.float32:
            raise SiteRefused("type", f"array {name} is {array.dtype}, expected float32")
        if not np.isfinite(array).all():
            raise SiteRefused("not-finite", f"array {name} has values that are not finite")
        if np.abs(array).max(initial=0.0) > LARGEST_WEIGHT:
            raise SiteRefused("too-large", f"array {name} has values above {LARGEST_WEIGHT:g}")
        if name.endswith("/moving_variance") and array.min(initial=0.0) < 0:
            raise SiteRefused("negative-variance", f"array {name} has negative values")


def check_evaluation(
    answer: Answer, n_classes: int, n_layers: int, calibrated: bool
) -> tuple[EvaluateReply, ScoreCounts]:
    """An evaluation with consistent counts and, where asked for, usable ranges."""
    reply = parsed(answer, EvaluateReply)
    counts = check_counts(reply.counts, n_classes)
    if calibrated:
        check_ranges(reply.ranges, n_layers)
        if reply.calibration_images < 1:
            raise SiteRefused("ranges", "calibration ranges of no images")
    return reply, counts


def check_counts(value: object, n_classes: int) -> ScoreCounts:
    """Counts over at most the run's classes, padded to all of them."""
    try:
        counts = ScoreCounts.from_json(value)
    except ValueError as error:
        raise SiteRefused("counts", f"evaluation counts that cannot be: {error}") from error
    if counts.n_classes > n_classes:
        raise SiteRefused("unknown-class", "counts for classes that the run does not have")
    return counts.padded(n_classes)


def check_ranges(ranges: tuple[float, ...], n_layers: int) -> None:
    """One finite range per layer, within the activations' bound and above zero; the head's is 0."""
    usable = (
        len(ranges) == n_layers
        and all(math.isfinite(r) and 0 < r <= BOUND * 1.001 for r in ranges[:-1])
        and ranges[-1] == 0
    )
    if not usable:
        raise SiteRefused("ranges", "calibration ranges that no such network can have")


def check_deployment(
    answer: Answer, classes: Collection[str], version: int, layers: Collection[str]
) -> DeployReply:
    """A deployment report whose counts are consistent and whose version is one that exists.

    ``classes`` are the run's codes: those reported as new are others.
    """
    reply = parsed(answer, DeployReply)
    n_classes = len(classes)
    check_heads(reply.heads, ("akida", "quantized", "chip_before", "chip_after"))
    for counts in reply.heads.values():
        check_counts(counts, n_classes + len(reply.new_classes))
    check_agreement(reply.agreement)
    for correct, n in (reply.old_before, reply.old_after, reply.new_before, reply.new_after):
        if correct > n:
            raise SiteRefused("counts", "more correct cases than cases")
    if not set(reply.mean_spikes) <= set(layers):
        raise SiteRefused("names", "spike counts of layers that the network does not have")
    if reply.in_service > version:
        raise SiteRefused("version", "reports a version that does not exist")
    if n_classes + len(reply.new_classes) > MOST_CLASSES:
        raise SiteRefused("unknown-class", f"a run has at most {MOST_CLASSES} classes")
    for code in reply.new_classes:
        if not (code.isascii() and code.replace("_", "").isalnum() and len(code) <= 32):
            raise SiteRefused("unknown-class", "a new class without a usable code")
    if len({*classes, *reply.new_classes}) != n_classes + len(reply.new_classes):
        raise SiteRefused("unknown-class", "a new class that the run has already, or twice")
    return reply


def check_final(answer: Answer, n_classes: int) -> FinalReply:
    """A final report with consistent counts for every head."""
    reply = parsed(answer, FinalReply)
    check_heads(reply.heads, ("float", "quantized", "akida", "chip"))
    for counts in reply.heads.values():
        check_counts(counts, n_classes)
    check_agreement(reply.agreement)
    return reply


def check_heads(heads: Collection[str], expected: Collection[str]) -> None:
    """Counts of every head, none left out."""
    if set(heads) != set(expected):
        raise SiteRefused("counts", "the counts of a head are missing")


def check_agreement(found: Mapping[str, int]) -> None:
    """Equal spikes and predictions cannot exceed their totals."""
    keys = {"images", "equal_predictions", "spikes", "equal_spikes"}
    if set(found) != keys or min(found.values()) < 0:
        raise SiteRefused("counts", "agreement counts that cannot be")
    if found["equal_predictions"] > found["images"] or found["equal_spikes"] > found["spikes"]:
        raise SiteRefused("counts", "agreement counts that cannot be")
