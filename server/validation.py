"""Every reply is checked here before anything is done with it.

A reply that fails costs its site the round; `SiteRefused.code` goes into the history, and no
text of the site's does.
"""

from collections.abc import Collection, Mapping
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from common.answers_by_class import AnswersByClass
from common.classes import ClassMap, is_code
from common.compression import decompress
from common.errors import SiteRefused
from common.messages import (
    PROTOCOL,
    Answer,
    BalanceReply,
    DeployReply,
    EvaluateReply,
    FinalReply,
    HandshakeReply,
    M,
    ShareReply,
    SiteCode,
    TrainAsk,
    TrainReply,
    parse_reply,
)
from common.metrics import ScoreCounts
from common.qana.network import BATCH_NORM_MOMENTUM, BOUND
from common.qana.quantize import CALIBRATION_IMAGES, SMALLEST_RANGE
from common.qana.weights import NamedWeights, fault_of, is_statistic
from common.update_reach import farthest_sent

OUTLIER = 20.0
"""Times the median; the four sources of HAM10000 stay within 1.2 of it, in every phase."""

_FEWEST_TO_COMPARE = 3

MOST_PER_CASE, FEW = 2, 100
"""SMOTE makes no more cases than a site was set up with (`common.data.smote`); some
learned cases may have been reported in a message that was lost."""

MOST_CLASSES = 64
"""Of a run, those of all sites together: no site can make the network grow without limit."""

Shapes = Mapping[str, tuple[int, ...]]


def parsed(answer: Answer, form: type[M]) -> M:
    """The reply's message; SiteRefused with the site's own code where it reports an error."""
    if answer.error:
        code = answer.error if answer.error in get_args(SiteCode) else "malformed"
        raise SiteRefused(code, _said_by_site(code, form))
    return parse_reply(answer.reply, form)


def _said_by_site(code: str, form: type[M]) -> str:
    """A site's own code in words."""
    if code == "declined":
        what = "training now" if form is TrainReply else "this reply"
        return f"the site's policy does not allow {what}"
    if code == "below-minimum":
        return "the program is below the minimum that the site's policy asks for"
    if code == "wrong-crop":
        return "the version was trained on images with another crop than the site's"
    if code == "wrong-image-size":
        return (
            "its images were prepared for another network; start the run with that --network, or "
            "prepare the site again"
        )
    return f"the site could not do it ({code})"


def check_handshake(
    reply: HandshakeReply, classes: ClassMap, model_hash: str, crop: str = ""
) -> None:
    """Refuse a site of another protocol, network or crop, or without one of the run's classes.

    Crops are compared where both sides say theirs.
    """
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
    if not all(map(is_code, reply.classes)):
        raise SiteRefused(
            "class-map", "its class map has a code that is none; use a to z, digits, '_' and '-'"
        )
    if reply.model_hash != model_hash:
        raise SiteRefused(
            "model-hash", "builds another network; install the same fedqana version on both"
        )
    if crop and reply.crop and reply.crop != crop:
        raise SiteRefused(
            "wrong-crop",
            f"its images are cropped by {reply.crop!r}, the run's by {crop!r}; start a run with "
            f"--crop {reply.crop}, or let the site join anew with --crop {crop}",
        )
    if reply.n_train == 0:
        raise SiteRefused("no-cases", "has no training cases")


def check_update(
    answer: Answer, current: NamedWeights, ask: TrainAsk, n_cases: int
) -> tuple[TrainReply, NamedWeights]:
    """A training reply with exactly the model's arrays, all finite, none moved too far.

    A compressed change, where one was asked for, is first made the weights that it leads to.

    Parameters
    ----------
    current : named arrays
        What the site was sent.
    ask : TrainAsk
        How it was asked to train.
    n_cases : int
        Training cases that it reported at the handshake, and cases learned since.
    """
    reply = parsed(answer, TrainReply)
    if reply.examples > MOST_PER_CASE * n_cases + FEW:
        raise SiteRefused("counts", "trained on far more cases than it reported before")
    compressed = ask.compression != "none"
    arrays = decompress(answer.arrays, current) if compressed else answer.arrays
    check_arrays(arrays, {name: array.shape for name, array in current.items()})
    reach = farthest_sent(ask, reply.examples)
    for name, array in arrays.items():
        if not is_statistic(name) and np.abs(array - current[name]).max(initial=0.0) > reach:
            raise SiteRefused(
                "too-far", f"array {name} moved by more than {reach:.3g}, the most that the "
                "optimizer's steps can"
            )  # fmt: skip
    return reply, arrays


def outlying_statistics(
    updates: Mapping[str, tuple[NamedWeights, int]], current: NamedWeights
) -> set[str]:
    """Sites whose batch-norm statistics cannot be those of activations like the others'.

    A moving statistic after s steps is momentum^s of the old one and the rest of the batches', so
    the batches' own mean can be told. A site is an outlier where the norm of all of these is more
    than `OUTLIER` times the median of the sites that made at least a quarter as many steps: with
    more steps a network's activations may honestly have grown. Told among three sites or more.

    Parameters
    ----------
    updates : mapping of site to (named arrays, steps)
    """
    names = [name for name in current if is_statistic(name)]
    if not names:  # the quantized network has none
        return set()
    norms = {}
    for site, (arrays, n_steps) in updates.items():
        kept = BATCH_NORM_MOMENTUM**n_steps
        seen = [(arrays[n].astype(np.float64) - kept * current[n]) / (1 - kept) for n in names]
        norms[site] = float(np.sqrt(sum(np.square(array).sum() for array in seen)))
    outliers = set()
    for site, (_, n_steps) in updates.items():
        peers = [norms[other] for other, (_, n) in updates.items() if 4 * n >= n_steps]
        if len(peers) >= _FEWEST_TO_COMPARE and norms[site] > OUTLIER * float(np.median(peers)):
            outliers.add(site)
    return outliers


def check_arrays(arrays: Mapping[str, NDArray[np.float32]], expected: Shapes) -> None:
    """Refuse missing or additional names, other shapes or types, and impossible values."""
    if set(arrays) != set(expected):
        raise SiteRefused("names", "the update's arrays have other names than the model's")
    for name, shape in expected.items():
        array = arrays[name]
        if tuple(array.shape) != tuple(shape):
            raise SiteRefused("shape", f"array {name} has shape {array.shape}, expected {shape}")
        if array.dtype != np.float32:
            raise SiteRefused("type", f"array {name} is {array.dtype}, expected float32")
        if fault := fault_of(name, array):
            code, what = fault
            raise SiteRefused(code, f"array {name} has {what}")


def check_balance(
    answer: Answer, n_classes: int, n_cases: int
) -> tuple[BalanceReply, AnswersByClass]:
    """Answers to training cases by class whose probabilities add up.

    ``n_cases`` is the number of training cases that the site reported at the handshake, and of
    those learned since.
    """
    reply = parsed(answer, BalanceReply)
    if len(reply.counts) != n_classes or any(len(row) != n_classes for row in reply.shares):
        raise SiteRefused("unknown-class", "answers for other classes than the run has")
    counts = np.array(reply.counts, np.int64)
    shares = np.array(reply.shares, np.float64).reshape(-1, n_classes)
    if counts.sum() > n_cases + FEW:
        raise SiteRefused("counts", "answers to more cases than it reported before")
    if len(shares) != n_classes or not np.allclose(shares.sum(axis=1), counts, rtol=1e-6):
        raise SiteRefused("counts", "probabilities that do not add up to the cases")
    return reply, AnswersByClass(counts, shares)


def check_evaluation(
    answer: Answer, n_classes: int, n_layers: int, calibrated: bool, n_cases: int
) -> tuple[EvaluateReply, ScoreCounts]:
    """An evaluation with consistent counts and, where asked for, usable ranges.

    ``n_cases`` is the number of validation cases that the site reported at the handshake.
    """
    reply = parsed(answer, EvaluateReply)
    counts = check_counts(reply.counts, n_classes, n_cases)
    if calibrated:
        check_ranges(reply.ranges, n_layers)
        if not 1 <= reply.calibration_images <= CALIBRATION_IMAGES:
            raise SiteRefused("ranges", f"ranges of other than 1 to {CALIBRATION_IMAGES} images")
    return reply, counts


def check_counts(value: object, n_classes: int, n_cases: int) -> ScoreCounts:
    """Counts of at most the site's cases over the run's classes, padded to all of them."""
    try:
        counts = ScoreCounts.from_json(value)
    except ValueError as error:
        raise SiteRefused("counts", f"evaluation counts that cannot be: {error}") from error
    if counts.n_classes > n_classes:
        raise SiteRefused("unknown-class", "counts for classes that the run does not have")
    if counts.n > n_cases:
        raise SiteRefused("counts", "counts of more cases than it reported at the handshake")
    return counts.padded(n_classes)


def check_ranges(ranges: tuple[float, ...], n_layers: int) -> None:
    """One finite range per layer, from the smallest there is to the bound; the head's is 0."""
    usable = (
        len(ranges) == n_layers
        and all(SMALLEST_RANGE <= r <= BOUND * 1.001 for r in ranges[:-1])
        and ranges[-1] == 0
    )
    if not usable:
        raise SiteRefused("ranges", "calibration ranges that no such network can have")


def check_deployment(
    answer: Answer, classes: Collection[str], version: int, layers: Collection[str], n_cases: int
) -> DeployReply:
    """A deployment report whose counts are consistent and whose version is one that exists.

    ``classes`` are the run's codes: those reported as new are others. ``n_cases`` as in
    `check_evaluation`.
    """
    reply = parsed(answer, DeployReply)
    n_classes = len(classes)
    check_heads(reply.heads, ("akida", "quantized", "chip_before", "chip_after"))
    for counts in reply.heads.values():
        check_counts(counts, n_classes + len(reply.new_classes), n_cases)
    check_agreement(reply.agreement, n_cases)
    for correct, n in (reply.old_before, reply.old_after, reply.new_before, reply.new_after):
        if not correct <= n <= n_cases:
            raise SiteRefused("counts", "more correct cases than cases")
    if not set(reply.mean_spikes) <= set(layers):
        raise SiteRefused("names", "spike counts of layers that the network does not have")
    if reply.in_service > version:
        raise SiteRefused("version", "reports a version that does not exist")
    if n_classes + len(reply.new_classes) > MOST_CLASSES:
        raise SiteRefused("unknown-class", f"a run has at most {MOST_CLASSES} classes")
    for code in reply.new_classes:
        if not is_code(code):
            raise SiteRefused("unknown-class", "a new class without a usable code")
    if len({*classes, *reply.new_classes}) != n_classes + len(reply.new_classes):
        raise SiteRefused("unknown-class", "a new class that the run has already, or twice")
    return reply


def check_share(answer: Answer, n_neurons: int, n_cases: int) -> ShareReply:
    """A report of shared neurons whose counts can be.

    ``n_neurons`` were sent to it; ``n_cases`` as in `check_evaluation`.
    """
    reply = parsed(answer, ShareReply)
    if reply.adopted > n_neurons:
        raise SiteRefused("counts", "took over more neurons than there were")
    for correct, n in (reply.old_before, reply.old_after, reply.new_before, reply.new_after):
        if not correct <= n <= n_cases:
            raise SiteRefused("counts", "more correct cases than cases")
    return reply


def check_final(
    answer: Answer, n_classes: int, n_cases: int, all_symmetries: bool = False
) -> FinalReply:
    """A final report with consistent counts for every head.

    The chip's are left out where nothing serves, at a site that every deployment failed at.
    ``n_cases`` is the number of test cases that the site reported at the handshake,
    ``all_symmetries`` whether it was asked for answers by eight views.
    """
    reply = parsed(answer, FinalReply)
    program: tuple[str, ...] = ("float", "quantized", "akida")
    of_chip: tuple[str, ...] = ("chip", "combined")
    if all_symmetries:
        program, of_chip = (*program, "akida_symmetries"), (*of_chip, "symmetries")
    serves = any(head in reply.heads for head in of_chip)
    check_heads(reply.heads, (*program, *(of_chip if serves else ())))
    for counts in reply.heads.values():
        check_counts(counts, n_classes, n_cases)
    check_agreement(reply.agreement, n_cases)
    return reply


def check_heads(heads: Collection[str], expected: Collection[str]) -> None:
    """Counts of every head, none left out."""
    if set(heads) != set(expected):
        raise SiteRefused("counts", "the counts of a head are missing")


def check_agreement(found: Mapping[str, int], n_cases: int) -> None:
    """Equal spikes and predictions cannot exceed their totals, nor images the site's cases."""
    keys = {"images", "equal_predictions", "spikes", "equal_spikes"}
    if set(found) != keys or found["images"] > n_cases:
        raise SiteRefused("counts", "agreement counts that cannot be")
    if found["equal_predictions"] > found["images"] or found["equal_spikes"] > found["spikes"]:
        raise SiteRefused("counts", "agreement counts that cannot be")
