"""What a site allows: ``policy.toml`` in its home folder, the hospital's own and nobody else's.

Without the file everything is allowed, as in a simulated run. With it every message that leaves
the site goes through `edge_client.outgoing`, which enforces it. `docs/policy.md` says what each
key protects from, and what not.
"""

import json
import os
import re
import sys
import textwrap
import tomllib
from datetime import datetime, time
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from common.classes import is_code
from common.errors import SettingsError
from common.settings_file import in_words
from edge_client.client_folder import CONFIG

POLICY = "policy.toml"
AUDIT_LOG = "audit.jsonl"
"""The log beside the policy, see `edge_client.audit_log`."""

_THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
"""TensorFlow reads these once, when it starts."""

_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_LINE = 100
_MORE = ", docs/policy.md explains every key"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class TrainingPolicy(_Section):
    """Whether, when and how much the site trains for a run."""

    take_part: bool = Field(
        True,
        description="Whether this site trains at all. With false it still evaluates and takes "
        "programs into service, and tells nothing of how its training cases are answered.",
    )
    hours_per_day: float = Field(
        24.0,
        ge=0,
        le=24,
        description="Hours of local training in a calendar day, measured by what was spent. When "
        "they are used up, training is declined until midnight; one that has begun is finished.",
    )
    window: str = Field(
        "",
        description='Local time of day in which training may begin, e.g. "20:00-06:00" (it may '
        'pass midnight); "" for any time.',
    )
    max_epochs: int = Field(
        0,
        ge=0,
        description="Passes over the cases in one training, at most; where the coordinator asks "
        "for more, fewer are trained. 0 for as many as it asks.",
    )
    fine_tune: bool = Field(
        True,
        description="Whether a run's last version, or a promoted one, is trained on here for this "
        "site alone, if the run asks for it, and what came of it put into service where it has the "
        "higher balanced accuracy on the held-back validation cases. Its weights never leave the "
        "site. It is training: take_part, window, hours_per_day and max_epochs hold for it, too.",
    )
    max_threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="Threads of TensorFlow, which trains and evaluates; 0 for one per core. Takes "
        "effect when the client is started again.",
    )

    @field_validator("window")
    @classmethod
    def _is_window(cls, text: str) -> str:
        if text and (not _WINDOW.fullmatch(text) or text[:5] == text[6:]):
            raise ValueError('give two different times as "HH:MM-HH:MM", or "" for any time')
        return text

    def epochs(self, asked: int) -> int:
        """How many of the ``asked`` epochs are trained."""
        return min(asked, self.max_epochs) if self.max_epochs else asked

    def objection(self, now: datetime, spent_seconds: float) -> str:
        """Why training may not begin, or an empty text.

        Parameters
        ----------
        now : datetime
            Local time.
        spent_seconds : float
            Training of this calendar day until now.
        """
        if not self.take_part:
            return "the policy says take_part = false"
        if self.window and not _within(now.time(), self.window):
            return f"it is {now:%H:%M}, outside the policy's window {self.window}"
        if spent_seconds >= self.hours_per_day * 3600 and self.hours_per_day < 24:
            return (
                f"{spent_seconds / 3600:.2f} hours of training today, the policy's hours_per_day "
                f"is {self.hours_per_day:g}"
            )
        return ""


class ReportingPolicy(_Section):
    """What is told of the site's held-back cases."""

    min_cases_per_class: int = Field(
        0,
        ge=0,
        le=10**9,
        description="Held-back cases of a class that has fewer of them are left out of every "
        "number that is reported (validation and test lesions each by itself). They stay held "
        "back from learning. So are training cases left out of how the network answers them.",
    )


class SharingPolicy(_Section):
    """What of the chip's learning may leave the site."""

    neurons: bool = Field(
        True,
        description="Whether what the chip learned of new classes may leave the site for the "
        "other sites' chips.",
    )


class PrivacyPolicy(_Section):
    """Local differential privacy of the update (trained weights minus the received ones)."""

    clip_norm: float = Field(
        0.0,
        ge=0,
        description="Largest Euclidean norm of a round's update, batch norm's statistics "
        "included; a longer one is scaled down to it. 0 for no limit.",
    )
    epsilon: float = Field(
        0.0,
        ge=0,
        description="Privacy budget of one round's update: Gaussian noise of standard deviation "
        "sensitivity * sqrt(2 ln(1.25 / delta)) / epsilon is added to every weight. Needs "
        "clip_norm. With it nothing is told of how training cases are answered. 0 for no noise.",
    )
    delta: float = Field(
        1e-5,
        gt=0,
        lt=1,
        description="Probability, between 0 and 1, with which the budget may not hold.",
    )
    sensitivity: float = Field(
        0.0,
        ge=0,
        description="How much the update may differ, in Euclidean norm, when the site's cases do. "
        "0 for twice clip_norm, which covers any two sets of cases.",
    )

    @model_validator(mode="after")
    def _noise_needs_a_norm(self) -> "PrivacyPolicy":
        if self.epsilon and not self.clip_norm:
            raise ValueError("epsilon needs a clip_norm above 0: noise hides bounded updates only")
        return self


class AcceptancePolicy(_Section):
    """What a program must reach on the site's own held-back cases to be put into service."""

    min_balanced_accuracy: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Balanced accuracy, 0 to 1, that the chip's head must reach on the held-back "
        "validation cases. A program below it is never put into service, the first one neither. "
        "0 for no minimum.",
    )
    tolerance: float = Field(
        0.05,
        ge=0,
        le=1,
        description="How much worse in balanced accuracy, 0 to 1, a program may be than the one "
        "in service.",
    )
    evidence: float = Field(
        1.645,
        ge=0,
        description="Standard errors by which it must be worse to be kept out. 1.645: of two "
        "equally good programs the new one is kept out 1 time in 20.",
    )


class AnswersPolicy(_Section):
    """How the site's own chip answers."""

    all_symmetries: Literal["run", "always", "never"] = Field(
        "run",
        description="Whether an answer is the mean over the image's eight symmetries (quarter "
        'turns and flips): more accurate, eight times the work on the chip. "run" for what the '
        "coordinator's run asks. Takes effect with the next version.",
    )

    def by_symmetries(self, asked: bool) -> bool:
        """Whether answers are the mean over symmetries, where a run says ``asked``."""
        return asked if self.all_symmetries == "run" else self.all_symmetries == "always"


class ReferralPolicy(_Section):
    """Which cases a clinician is told to look at, whatever the program answers."""

    confidence_below: float = Field(
        0.7,
        ge=0,
        le=1,
        description="A case is referred where the answer's probability, 0 to 1, is below this.",
    )
    classes: tuple[str, ...] = Field(
        ("mel",),
        strict=False,
        description="A case is referred where the answer is one of these class codes.",
    )

    @field_validator("classes")
    @classmethod
    def _are_codes(cls, codes: tuple[str, ...]) -> tuple[str, ...]:
        if not all(map(is_code, codes)):
            raise ValueError("give class codes: a to z, digits, '_' and '-', at most 32")
        return codes


class Policy(_Section):
    """Everything a site may decide for itself; the defaults allow all."""

    training: TrainingPolicy = TrainingPolicy()
    reporting: ReportingPolicy = ReportingPolicy()
    sharing: SharingPolicy = SharingPolicy()
    privacy: PrivacyPolicy = PrivacyPolicy()
    acceptance: AcceptancePolicy = AcceptancePolicy()
    answers: AnswersPolicy = AnswersPolicy()
    referral: ReferralPolicy = ReferralPolicy()


def is_governed(home: Path) -> bool:
    """Whether this folder must have a policy: it is that of a client that joined a coordinator.

    It is where it has a policy, or the client's settings or audit log show that it had one.
    """
    if (home / POLICY).exists() or (home / POLICY).is_symlink():
        return True
    return (home / CONFIG).exists() or any(home.glob("audit*"))


def read_policy(home: Path) -> Policy:
    """The policy of the site whose home folder this is; all is allowed where it never had one.

    Raises SettingsError, one line with file, key and what to do: also where a site that must have
    the file has lost it, since that must not allow everything.
    """
    path = home / POLICY
    if not is_governed(home):
        return Policy()
    try:
        values = tomllib.loads(path.read_bytes().decode())
    except FileNotFoundError as error:
        raise SettingsError(
            f"{path} is missing; put it back, nothing leaves the site without it (its client has "
            "joined a coordinator)"
        ) from error
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read ({error.strerror}); correct its permissions"
        ) from error
    except ValueError as error:  # no TOML, or no UTF-8
        raise SettingsError(f"{path} is not TOML ({error}); correct that line") from error
    try:
        return Policy.model_validate(values)
    except ValidationError as error:
        raise SettingsError(f"{path}: {in_words(error, Policy, _MORE)}") from error


def _within(now: time, window: str) -> bool:
    start, end = (time.fromisoformat(text) for text in window.split("-"))
    return start <= now < end if start < end else now >= start or now < end


def apply_threads(policy: Policy) -> bool:
    """Limit TensorFlow's threads as the policy says; call it before anything imports TensorFlow.

    True where the limit holds, or there is none. False where TensorFlow runs already with other
    numbers, which cannot be changed within a process.
    """
    wanted = policy.training.max_threads
    if not wanted:
        return True
    if "tensorflow" not in sys.modules:
        os.environ.update(dict.fromkeys(_THREADS, str(wanted)))
    if all(os.environ.get(name) == str(wanted) for name in _THREADS):
        return True
    from common.keras_setup import tf

    threading = tf.config.threading
    try:
        threading.set_intra_op_parallelism_threads(wanted)
        threading.set_inter_op_parallelism_threads(wanted)
    except RuntimeError:  # it has begun to compute
        return False
    return True


def _template() -> str:
    """The policy with all defaults, every key explained."""
    lines = [
        *_comment(
            "What this site allows. The hospital's own file: nobody else reads or changes it. It "
            "holds from the next message on. Unknown keys are refused. docs/policy.md says what "
            "each key protects from, and what not."
        )
    ]
    for section, about in Policy.model_fields.items():
        form = about.annotation
        assert isinstance(form, type) and issubclass(form, BaseModel)
        lines += ["", *_comment(str(form.__doc__)), f"[{section}]"]
        for key, field in form.model_fields.items():
            value = json.dumps(field.default)  # TOML writes these values as JSON does
            lines += [*_comment(str(field.description)), f"{key} = {value}"]
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, _LINE - 2)]


POLICY_TEMPLATE = _template()
"""A commented ``policy.toml`` with the defaults, for a site that joins."""
