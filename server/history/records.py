"""What the history remembers, as plain values: the only types that leave `server.history`."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

RUN_STATES = ("running", "finished", "stopped", "failed")


DELIVERY_OF = "delivery of "
"""How the data of a run is called that brings one version, RUN:VERSION, to the sites."""


@dataclass(frozen=True)
class Run:
    """One federated run.

    ``plan`` is the run's settings as JSON, ``software`` maps package names to versions,
    ``classes`` are the class codes in index order (a new class appends to them).
    """

    run_id: str
    created_at: datetime
    state: str
    seed: int
    strategy: str
    data: str
    folder: str
    classes: tuple[str, ...]
    plan: dict[str, Any]
    software: dict[str, str]
    finished_at: datetime | None = None
    reason: str = ""

    @property
    def is_delivery(self) -> bool:
        """Whether it brought one version to the sites, without rounds."""
        return self.data.startswith(DELIVERY_OF)


@dataclass(frozen=True)
class Site:
    """One site of a run; ``accepted`` is False for a site left out at the handshake."""

    run_id: str
    name: str
    accepted: bool
    reason: str
    n_train: int
    n_validation: int
    n_test: int


@dataclass(frozen=True)
class Round:
    """One round of a run; ``phase`` is "float" or "qat", ``seconds`` maps steps to wall time.

    Parts of a step are in it too, as "STEP/PART" (`server.step_times`).
    """

    run_id: str
    number: int
    phase: str
    started_at: datetime
    finished_at: datetime | None
    sites_asked: int
    sites_aggregated: int
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SiteResult:
    """What one site reported for one step of one round, or why nothing was accepted.

    ``result`` by step: train {"examples", "loss"}; evaluate {"global": counts}; final {head:
    counts} with the heads of `common.messages.FinalReply`, where counts is the JSON form of
    `common.metrics.ScoreCounts`. ``bytes_down`` and ``bytes_up`` are the message payloads seen
    from the site; ``reason`` is empty where ``accepted``.
    """

    run_id: str
    round: int
    site: str
    step: str
    accepted: bool
    reason: str
    seconds: float
    bytes_down: int
    bytes_up: int
    result: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelVersion:
    """One model bundle; its version is the number of the round that made it.

    ``fit`` maps a device name to its mapping report; ``metrics`` is what the card says.
    """

    run_id: str
    version: int
    phase: str
    created_at: datetime
    folder: str
    card_sha256: str
    fit: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EdgeUpdate:
    """What one site's edge client did with one model version.

    ``result``: {"backend", "akida", "quantized", "chip_before", "chip_after": counts,
    "agreement": {"images", "equal_predictions", "spikes", "equal_spikes"},
    "latency_ms", "power_mw": float or None where not measured, "new_classes": list of codes,
    "fine_tuned": bool}; older ones lack the last.
    """

    run_id: str
    round: int
    site: str
    version: int
    switched: bool
    reason: str
    cases_learned: int
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def fine_tuned(self) -> bool:
        """Whether the program in service is one that the site trained on for itself."""
        return bool(self.result.get("fine_tuned"))


@dataclass(frozen=True)
class Event:
    """One line of the append-only trail; ``number`` grows with time."""

    number: int
    run_id: str
    at: datetime
    kind: str
    message: str
    round: int | None = None
    site: str | None = None


@dataclass(frozen=True)
class RunRecord:
    """Everything known of one run, each list ordered by round and site."""

    run: Run
    sites: list[Site]
    rounds: list[Round]
    site_results: list[SiteResult]
    versions: list[ModelVersion]
    edge_updates: list[EdgeUpdate]
    events: list[Event]


@dataclass(frozen=True)
class RunSummary:
    """One line of the list of runs."""

    run: Run
    sites: int
    sites_accepted: int
    rounds_finished: int


@dataclass(frozen=True)
class SchemaStatus:
    """The schema version found in a database (without its password) and the one needed.

    ``state`` is "empty", "older", "current", "newer" or "foreign" (another program's tables);
    ``version`` is None where there is none.
    """

    database: str
    state: str
    version: str | None
    needed: str


MEMBER_STATES = ("invited", "pending", "approved", "revoked")


@dataclass(frozen=True)
class Member:
    """A hospital site of this coordinator.

    ``state`` is one of `MEMBER_STATES`; ``code_sha256`` the hash of its one-time code, empty once
    used; ``public_key`` its node key in OpenSSH's form; ``node_id`` Flower's, as text, while
    approved; ``software`` what it said it runs; ``heard_at`` when it was last seen
    connected or answered.
    """

    name: str
    state: str
    code_sha256: str
    expires_at: datetime
    public_key: str
    node_id: str
    software: dict[str, str]
    invited_at: datetime
    joined_at: datetime | None = None
    approved_at: datetime | None = None
    revoked_at: datetime | None = None
    heard_at: datetime | None = None


@dataclass(frozen=True)
class AuditLine:
    """One line of the coordinator's append-only audit trail."""

    number: int
    at: datetime
    actor: str
    action: str
    subject: str
    detail: str


@dataclass(frozen=True)
class Promotion:
    """A version that the coordinator put into service; ``action`` is "promote" or "rollback"."""

    number: int
    at: datetime
    run_id: str
    version: int
    action: str
