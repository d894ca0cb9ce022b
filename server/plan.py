"""A run's settings: everything that, with the sites' data, determines its outcome."""

import json
import math
from typing import Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from common.compression import Compression
from common.data.smote import SHARE
from common.errors import SettingsError
from common.qana.config import QanaConfig
from common.qana.initial import RANDOM
from common.qana.initial import shown as initial_shown
from common.saliency.choice import CropName
from server.averaging import rounds_averaged

Phase = Literal["float", "qat"]


def half_cosine(first: float, position: int, length: int) -> float:
    """The rate at step ``position`` (from 0) of ``length``, from ``first`` down to a fiftieth.

    SGDR without restarts (arXiv 1608.03983).
    """
    lowest = first / 50
    return lowest + (first - lowest) * 0.5 * (1 + math.cos(math.pi * position / length))


def fixes_statistics(share: float, number: int, count: int) -> bool:
    """Whether batch norm's statistics are fixed in round or epoch ``number``, from 1, of ``count``.

    They are after the first ``share`` of them, but not in the first one: the statistics of an
    untrained network are made up.
    """
    return number > max(1, share * count)


class RunPlan(BaseModel):
    """Settings of a run; checked once, then fixed until its end.

    Parameters
    ----------
    classes : tuple of str
        Class codes known before round 1, in index order.
    crop : str
        How the sites' images are cropped (`common.saliency.choice`); sites that crop otherwise
        are left out. Empty in plans that were made before it was noted: nothing is compared.
    initial : str
        Where the float network starts: "random", or the SHA-256 of a file of weights
        (`common.qana.initial`), which is kept in the run's folder.
    float_rounds, qat_rounds : int
        Rounds of float training, then rounds in which sites train the quantized network.
    learning_rate, qat_learning_rate : float
        Of the sites' optimizer in the first round of each phase; they fall along half a cosine
        to a fiftieth within the phase.
    event_penalty : float
        Weight of the mean activation level in the loss of quantization-aware rounds: the larger,
        the fewer events the program has (docs/conversion.md has the curve).
    distillation : float
        Share, 0 to 1, of the float network's answers in the targets of quantization-aware rounds;
        the rest are the labels. Above 0 the sites get the float weights too. It keeps what the
        float network can do, where that is more than the quantized one learns by itself
        (docs/rounds.md).
    compression : str
        How a site's update travels (`common.compression`): "quantization" takes a ninth of the
        bytes of "none", "top-k" an eighteenth.
    class_prior : str
        Whose shares of the classes a site's loss is corrected by, with ``balance`` "prior": of
        all sites' cases together ("pooled", told from their validation counts), or its own.
    freeze_batch_norm : float
        Share, 0 to 1, of the float rounds after which batch norm's statistics are fixed; 1 for
        never (FixBN, arXiv 2303.06530: sites no longer normalize by their own batches, which are
        unlike, but all by the same statistics, as the program on the chip does).
    all_symmetries : "never", "last" or "always"
        Which versions sites answer with by the mean over an image's eight symmetries, unless
        their policies say otherwise: none, the last one of the run and those that are promoted,
        or each. It costs eight times the chip's time, so the versions of a few minutes do without.
    fine_tuning_epochs : int
        Epochs that each site trains the run's last version, and those that are promoted, on for
        itself, to serve what it gains by (`edge_client.fine_tuning`); 0 for none. Not while the
        run has classes that it did not start with: what sites' chips learned of these is shared
        for the program that all of them serve.
    site_weights : "cases" or "classes"
        What a site's update counts by, see `server.site_weights`; FedMedian, FedTrimmedAvg and
        Krum weigh all sites alike.
    average : float
        Share of a phase's rounds, its last ones, whose networks' mean the phase ends with; 0 for
        the last round's network alone.
    class_offsets : bool
        With ``balance`` "prior": whether each phase ends with the offsets of the classes' logits by
        which the network answers all classes alike, see `server.class_offsets`.
    deploy_every : int
        Every so many rounds, and after the last one of each phase, an Akida program is made and
        deployed; the rounds between only train and evaluate, and what arrives at a site waits.
    strategy : str
        Flower's, by name.
    proximal : float
        FedProx's mu; used by that strategy only.
    server_learning_rate : float
        eta of FedAdam and FedYogi.
    smote_share : float
        With ``balance`` "smote": share of a site's largest class up to which it fills the others.
    quorum : float
        Share of the accepted sites that must deliver a valid update for a round to count.
    deadline : float
        Seconds that the sites have for each step.
    expected_sites : int
        How many sites to wait for before the handshake.
    gather : float
        Seconds to wait for them; then the run begins with those that are there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    run: str
    seed: int = Field(ge=0, lt=2**32)
    classes: tuple[str, ...] = Field(min_length=2)
    config: QanaConfig = QanaConfig()
    crop: CropName | Literal[""] = ""
    initial: str = Field(default=RANDOM, pattern=r"^(random|[0-9a-f]{64})$")
    float_rounds: int = Field(default=48, ge=0)
    qat_rounds: int = Field(default=16, ge=0)
    local_epochs: int = Field(default=1, ge=1)
    batch: int = Field(default=64, ge=2)
    learning_rate: float = Field(default=1e-3, gt=0)
    qat_learning_rate: float = Field(default=3e-4, gt=0)
    event_penalty: float = Field(default=0.0, ge=0)
    distillation: float = Field(default=1.0, ge=0, le=1)
    compression: Compression = "none"
    class_prior: Literal["pooled", "site"] = "pooled"
    freeze_batch_norm: float = Field(default=0.25, ge=0, le=1)
    site_weights: Literal["cases", "classes"] = "cases"
    average: float = Field(default=0.25, ge=0, le=1)
    class_offsets: bool = True
    deploy_every: int = Field(default=1, ge=1)
    all_symmetries: Literal["never", "last", "always"] = "last"
    fine_tuning_epochs: int = Field(default=5, ge=0)
    strategy: Literal[
        "fedavg", "fedprox", "fedadam", "fedyogi", "fedmedian", "fedtrimmedavg", "krum"
    ] = "fedavg"
    proximal: float = Field(default=0.01, ge=0)
    server_learning_rate: float = Field(default=0.01, gt=0)
    prior_strength: float = Field(default=1.0, ge=0)
    balance: Literal["prior", "smote", "none"] = "prior"
    smote_share: float = Field(default=SHARE, gt=0, le=1)
    quorum: float = Field(default=0.5, gt=0, le=1)
    deadline: float = Field(default=3600.0, gt=0)
    expected_sites: int = Field(default=1, ge=1)
    gather: float = Field(default=60.0, ge=0)

    @field_validator("all_symmetries", mode="before")
    @classmethod
    def _told_by_version(cls, value: object) -> object:
        """Plans of earlier versions said yes or no, for all versions alike."""
        return {True: "always", False: "never"}[value] if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _has_rounds(self) -> "RunPlan":
        if self.float_rounds + self.qat_rounds < 1:
            raise ValueError("a run needs at least one round")
        if self.float_rounds < 1:
            raise ValueError("quantized rounds start from a float network: float_rounds >= 1")
        return self

    @property
    def rounds(self) -> int:
        """Number of rounds of both phases."""
        return self.float_rounds + self.qat_rounds

    def phase(self, round_number: int) -> Phase:
        """Phase of a round, counted from 1."""
        return "float" if round_number <= self.float_rounds else "qat"

    def deploys(self, round_number: int) -> bool:
        """Whether a round, counted from 1, makes a model version and deploys it."""
        return self.ends_phase(round_number) or round_number % self.deploy_every == 0

    def by_symmetries(self, round_number: int) -> bool:
        """Whether sites are to answer by eight views with the version of a round."""
        if self.all_symmetries == "last":
            return round_number == self.rounds
        return self.all_symmetries == "always"

    def version_before(self, round_number: int) -> int:
        """The last model version of the rounds before; 0 where there is none."""
        return next((n for n in range(round_number - 1, 0, -1) if self.deploys(n)), 0)

    def fixes_batch_norm(self, round_number: int) -> bool:
        """Whether batch norm's statistics are fixed in a round, counted from 1."""
        if self.phase(round_number) == "qat":
            return False  # folded away
        return fixes_statistics(self.freeze_batch_norm, round_number, self.float_rounds)

    def averages(self, round_number: int) -> bool:
        """Whether a round's network is one of those whose mean its phase ends with."""
        is_float = self.phase(round_number) == "float"
        length = self.float_rounds if is_float else self.qat_rounds
        last = self.float_rounds if is_float else self.rounds
        return round_number > last - rounds_averaged(self.average, length)

    def balances(self, round_number: int) -> bool:
        """Whether a round, counted from 1, ends with offsets of its network's logits."""
        return self.class_offsets and self.balance == "prior" and self.ends_phase(round_number)

    def ends_phase(self, round_number: int) -> bool:
        """Whether a round, counted from 1, is the last of its phase."""
        return round_number in (self.float_rounds, self.rounds)

    def learning_rate_in(self, round_number: int) -> float:
        """The sites' rate in a round: half a cosine within each phase."""
        if self.phase(round_number) == "float":
            return half_cosine(self.learning_rate, round_number - 1, self.float_rounds)
        position = round_number - 1 - self.float_rounds
        return half_cosine(self.qat_learning_rate, position, self.qat_rounds)


def setting_shown(name: str, value: object) -> str:
    """A plan's setting for people, from its JSON value."""
    if name == "initial":
        return initial_shown(str(value))
    return value if isinstance(value, str) else json.dumps(value)


def make_plan(**settings: object) -> RunPlan:
    """A checked plan; SettingsError names the first setting that does not fit."""
    try:
        return RunPlan.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = " ".join(str(part).replace("_", "-") for part in first["loc"]) or "the plan"
        why = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{where}: {why}; see the command's --help") from error
