"""What coordinator and site say to each other, free of any engine.

Every exchange is an `Instruction` to a site and an `Answer` from it. Both carry a validated JSON
part and, beside it, named arrays (weights) or files (a bundle's). Sites answer with codes and
numbers only: never with text that could stem from patients' data.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.compression import Compression
from common.data.smote import SHARE
from common.errors import SiteRefused
from common.neurons import NeuronSet
from common.qana.config import QanaConfig
from common.saliency.choice import CropName

PROTOCOL = 13
"""Raised whenever a message changes its meaning; both sides must have the same."""

Kind = Literal["handshake", "train", "balance", "evaluate", "deploy", "share", "final"]
KINDS: tuple[Kind, ...] = (
    "handshake", "train", "balance", "evaluate", "deploy", "share", "final"
)  # fmt: skip

SiteCode = Literal[
    "bad-instruction",
    "no-cases",
    "data-unreadable",
    "wrong-image-size",
    "wrong-crop",
    "bundle-damaged",
    "device-error",
    "storage-full",
    "state-damaged",
    "state-in-use",
    "declined",
    "below-minimum",
    "internal-error",
]
"""Why a site could not do what it was asked: the only words it sends."""


LARGEST_COUNT = 10**9
"""No site has more cases; sums of counts below it stay exact and fit a database's integers."""

LARGEST_NUMBER = 10**15
"""No measured number, and no count of spikes, is larger; sums over sites stay finite."""

Count = Annotated[int, Field(ge=0, le=LARGEST_COUNT)]
Total = Annotated[int, Field(ge=0, le=LARGEST_NUMBER)]
Measured = Annotated[float, Field(ge=0, le=LARGEST_NUMBER)]


BACKEND = r"^(software backend \(akida [0-9.]{1,16}\)|[A-Za-z0-9]+/[A-Za-z0-9_]+/[0-9]+)$"
"""Akida's software backend, or a device as Akida describes it, e.g. ``PCIe/NSoC_v2/0``."""


KeptCode = Literal["", "worse-than-current", "does-not-fit", "below-minimum"]
"""Why an edge client kept the version it had."""


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class HandshakeAsk(_Message):
    """Before round 1: does this site fit the run?"""

    protocol: int
    run: str
    classes: tuple[str, ...]
    config: QanaConfig


class HandshakeReply(_Message):
    """A site's name, what it runs and how many cases it has (not which).

    ``crop`` is how its images are cropped; said to coordinators of the same protocol only.
    """

    protocol: int
    site: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    classes: tuple[str, ...]
    crop: CropName | Literal[""] = ""
    model_hash: str
    fedqana: str
    n_train: Count
    n_validation: Count
    n_test: Count


class TrainAsk(_Message):
    """One round of local training; the weights travel beside it.

    So does the float network, the teacher, where ``distillation`` is above 0. ``counted`` is the
    last round whose update of this site the global weights have in them, 0 for none: what
    compression left out of that update is still to be sent. With ``fixed_batch_norm`` the float
    network normalizes by the statistics it came with, and leaves them as they are.
    ``class_prior`` are the shares of the classes that the loss is corrected by; where it is empty,
    those of the site's own cases.
    """

    run: str
    round: int = Field(ge=1)
    phase: Literal["float", "qat"]
    classes: tuple[str, ...]
    config: QanaConfig
    epochs: int = Field(ge=1)
    batch: int = Field(ge=2)
    learning_rate: float = Field(gt=0)
    prior_strength: float = Field(ge=0)
    proximal: float = Field(ge=0)
    balance: Literal["prior", "smote", "none"]
    smote_share: float = Field(default=SHARE, gt=0, le=1)
    seed: int = Field(ge=0)
    class_prior: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    fixed_batch_norm: bool = False
    event_penalty: float = Field(default=0.0, ge=0)
    distillation: float = Field(default=0.0, ge=0, le=1)
    compression: Compression = "none"
    counted: int = Field(default=0, ge=0)


class TrainReply(_Message):
    """How many cases a site trained on and the loss of its last epoch.

    Beside it travel the trained weights, or their compressed change (`common.compression`).
    """

    examples: Count = Field(gt=0)
    loss: float = Field(ge=-LARGEST_NUMBER, le=LARGEST_NUMBER)
    seconds: Measured


class BalanceAsk(_Message):
    """How do the global weights answer the site's training cases, class by class?"""

    run: str
    round: int = Field(ge=1)
    phase: Literal["float", "qat"]
    classes: tuple[str, ...]
    config: QanaConfig


class BalanceReply(_Message):
    """Training cases of each class, and the sums of what they were answered.

    ``shares[c]`` are the sums of the softmax probabilities of all classes over the ``counts[c]``
    cases of class c. Classes that the site's policy hides have zeros.
    """

    counts: tuple[Count, ...] = Field(max_length=64)
    shares: tuple[tuple[Measured, ...], ...] = Field(max_length=64)
    seconds: Measured


class EvaluateAsk(_Message):
    """Evaluate the global weights on the site's validation lesions; calibrate if asked."""

    run: str
    round: int = Field(ge=1)
    phase: Literal["float", "qat"]
    classes: tuple[str, ...]
    config: QanaConfig
    calibrate: bool


class EvaluateReply(_Message):
    """Additive counts (`common.metrics.ScoreCounts` as JSON) and calibration ranges."""

    counts: dict[str, Any]
    ranges: tuple[float, ...] = ()
    calibration_images: Count = 0
    seconds: Measured


class DeployAsk(_Message):
    """A new model version for the site's chip; the bundle's files travel beside it.

    The run started with the first ``original_classes`` of the bundle's classes; what a site
    reports of new classes is about all others. With ``all_symmetries`` the site answers by the
    mean over an image's eight symmetries, unless its policy says otherwise. With ``fine_tuning`` it
    trains the version on for itself, as that says, and serves what it gains by; its run, round,
    phase, classes and network are this message's.
    """

    run: str
    round: int = Field(ge=1)
    version: int = Field(ge=1)
    original_classes: int = Field(ge=1)
    seed: int = Field(ge=0)
    all_symmetries: bool = False
    fine_tuning: TrainAsk | None = None


class DeployReply(_Message):
    """What the edge client did with the version and the cases that came since the last.

    Counts of the chip's head are over the version's classes, then ``new_classes``. ``neurons`` are
    those that the site taught to classes that the run did not start with, learned on this
    version's spikes; None where it has none, serves another version or does not share.
    ``fine_tuned`` is whether the program in service is one that the site trained on for itself.
    """

    switched: bool
    reason: KeptCode
    in_service: int = Field(ge=0)
    cases_learned: Count
    new_classes: tuple[str, ...] = Field(max_length=64)
    backend: str = Field(pattern=BACKEND)
    heads: dict[Literal["akida", "quantized", "chip_before", "chip_after"], dict[str, Any]]
    old_before: tuple[Count, Count]
    old_after: tuple[Count, Count]
    new_before: tuple[Count, Count]
    new_after: tuple[Count, Count]
    agreement: dict[str, Total]
    mean_spikes: dict[str, Measured]
    latency_ms: Measured | None = None
    power_mw: Measured | None = None
    neurons: NeuronSet | None = None
    fine_tuned: bool = False
    seconds: Measured


class ShareAsk(_Message):
    """Neurons of all sites for the version that was just deployed.

    ``classes`` is the run's registry now, ``original_classes`` as in `DeployAsk`.
    """

    run: str
    round: int = Field(ge=1)
    classes: tuple[str, ...]
    original_classes: int = Field(ge=1)
    neurons: NeuronSet
    seed: int = Field(ge=0)


class ShareReply(_Message):
    """How many neurons of other sites the site took over, and what that changed.

    Hits on its validation lesions, of classes that the run started with and of new ones, before
    and after. All zero where it serves another version.
    """

    adopted: Count
    old_before: tuple[Count, Count] = (0, 0)
    old_after: tuple[Count, Count] = (0, 0)
    new_before: tuple[Count, Count] = (0, 0)
    new_after: tuple[Count, Count] = (0, 0)
    seconds: Measured


class FinalAsk(_Message):
    """Once, after the last round: all heads on the site's test lesions.

    ``classes`` is the registry at the end; the bundle may lack its newest ones.
    """

    run: str
    round: int = Field(ge=1)
    classes: tuple[str, ...]
    seed: int = Field(ge=0)
    all_symmetries: bool = False


FinalHead = Literal[
    "float", "quantized", "akida", "akida_symmetries", "chip", "combined", "symmetries"
]


class FinalReply(_Message):
    """Additive counts per head on the test lesions; no chip head where no program serves.

    "combined" is the program's head and the chip's together, which is what a site answers.
    "akida_symmetries" and "symmetries" are the means of the program's scores and of both heads'
    over an image's eight symmetries, where the run asks for it.
    """

    heads: dict[FinalHead, dict[str, Any]]
    agreement: dict[str, Total]
    seconds: Measured


ASKS: dict[Kind, type[_Message]] = {
    "handshake": HandshakeAsk,
    "train": TrainAsk,
    "balance": BalanceAsk,
    "evaluate": EvaluateAsk,
    "deploy": DeployAsk,
    "share": ShareAsk,
    "final": FinalAsk,
}


@dataclass(frozen=True)
class Instruction:
    """What a site is asked to do.

    Parameters
    ----------
    kind : one of `KINDS`
    ask : the kind's message
    arrays : named float32 arrays, by default none
    files : file contents by name, by default none
    teacher : named float32 arrays of the float network to distil from, by default none
    """

    kind: Kind
    ask: BaseModel
    arrays: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    teacher: dict[str, NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What a site said, or the code of why it could not.

    ``reply`` is its JSON, unvalidated on the coordinator's side; ``error`` is empty on success.
    """

    reply: str = ""
    error: str = ""
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)


M = TypeVar("M", bound=BaseModel)


def parse_reply(text: str, form: type[M]) -> M:
    """A site's JSON as the expected message; SiteRefused("malformed") for anything else."""
    try:
        return form.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        # Deeper parts of the location, and names of fields too many, are the site's own text.
        field = str(first["loc"][0]) if first["loc"] else ""
        where = field if field in form.model_fields else "reply"
        raise SiteRefused("malformed", f"malformed reply ({where}: {first['msg']})") from error
