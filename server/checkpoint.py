"""The state of a run between two steps, saved so that a kill at any moment loses one step."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.arrays import from_npz, to_npz
from common.errors import StateDamaged
from common.files import sha256_of, write_atomically
from common.qana.weights import NamedWeights

STEPS = ("train", "evaluate", "bundle", "deploy", "share")
"""The steps of a round in order; after the last one comes the next round's first."""

_SCALARS = (
    "round",
    "step",
    "classes",
    "ranges",
    "sites",
    "learned",
    "metrics",
    "seconds",
    "started_at",
    "aggregated",
    "neurons",
    "counted",
    "class_prior",
    "mean_rounds",
    "class_counts",
)
_GROUPS = ("floating", "quantized", "strategy", "mean_network")
"""The networks and the strategy's memory: named arrays."""

FINAL = "final"
DONE = "done"


def steps_of_round(deploys: bool) -> tuple[str, ...]:
    """The steps of a round in order; without ``deploys`` it makes no model version."""
    return STEPS if deploys else STEPS[:2]


@dataclass
class RunState:
    """Everything the coordinator carries from step to step.

    ``step`` is the next one to do in ``round``. ``ranges`` are aggregated calibration ranges in
    chain order, empty before the first evaluation. ``strategy`` is the strategy's memory
    (moments of FedAdam), ``metrics`` the pooled validation metrics of the current weights.
    ``sites`` are the names accepted before round 1, ``learned`` how many cases each of them has
    learned since. ``seconds``, ``started_at`` (ISO 8601) and
    ``aggregated`` (updates in the last aggregation) describe the round for the history.
    ``neurons`` is the JSON of the `NeuronSet` that the round's sites are to share, or empty.
    ``counted`` is each site's last round whose update the weights have in them. ``class_prior``
    are the shares of the classes in all sites' validation lesions, empty before they were counted.
    ``mean_network`` is the mean of the networks of the last ``mean_rounds`` rounds, which the phase
    ends with; empty before its last rounds. ``class_counts`` are each site's validation lesions of
    each class, as last reported.
    """

    round: int
    step: str
    classes: tuple[str, ...]
    floating: NamedWeights
    quantized: NamedWeights = field(default_factory=dict)
    strategy: NamedWeights = field(default_factory=dict)
    ranges: tuple[float, ...] = ()
    sites: tuple[str, ...] = ()
    learned: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    started_at: str = ""
    aggregated: int = 0
    neurons: str = ""
    counted: dict[str, int] = field(default_factory=dict)
    class_prior: tuple[float, ...] = ()
    mean_network: NamedWeights = field(default_factory=dict)
    mean_rounds: int = 0
    class_counts: dict[str, list[int]] = field(default_factory=dict)

    def advance(self, steps: Sequence[str] = STEPS) -> None:
        """Move on to the next of this round's ``steps``, or to the next round's first."""
        position = steps.index(self.step) + 1
        if position < len(steps):
            self.step = steps[position]
        else:
            self.step = STEPS[0]
            self.round += 1
            self.seconds = {}
            self.started_at = ""
            self.aggregated = 0
            self.neurons = ""


class CheckpointFile:
    """The one checkpoint of a run: replaced atomically, verified when read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, state: RunState) -> None:
        """Replace the checkpoint; raises StorageFull and leaves the old one in place."""
        scalars = {name: getattr(state, name) for name in _SCALARS}
        arrays: dict[str, NDArray[Any]] = {
            "scalars": np.frombuffer(json.dumps(scalars).encode(), np.uint8)
        }
        for group in _GROUPS:
            for name, array in getattr(state, group).items():
                arrays[f"{group}:{name}"] = array
        content = to_npz(arrays)
        write_atomically(self.path, sha256_of(content).encode() + content)

    def load(self) -> RunState | None:
        """The state as last saved, None before the first; StateDamaged where it was changed."""
        for leftover in self.path.parent.glob(f".{self.path.name}.*.partial"):
            leftover.unlink(missing_ok=True)  # of a process that was killed while it wrote
        if not self.path.exists():
            return None
        stored = self.path.read_bytes()
        content = stored[64:]
        if stored[:64] != sha256_of(content).encode():
            raise StateDamaged(
                f"the checkpoint {self.path} does not match its checksum; restore it from a "
                "backup or start a new run"
            )
        try:
            return _state(from_npz(content))
        except (ValueError, KeyError, TypeError) as error:
            raise StateDamaged(
                f"the checkpoint {self.path} is of another version of fedqana; resume with the "
                "version that wrote it or start a new run"
            ) from error


def _state(arrays: dict[str, NDArray[Any]]) -> RunState:
    """The state that a checkpoint's arrays hold; ValueError, KeyError where it is another's."""
    scalars = json.loads(arrays.pop("scalars").tobytes())
    groups: dict[str, NamedWeights] = {group: {} for group in _GROUPS}
    for key, array in arrays.items():
        group, name = key.split(":", 1)
        groups[group][name] = array
    return RunState(
        round=int(scalars["round"]),
        step=str(scalars["step"]),
        classes=tuple(scalars["classes"]),
        ranges=tuple(scalars["ranges"]),
        sites=tuple(scalars["sites"]),
        learned=dict(scalars["learned"]),
        metrics=scalars["metrics"],
        seconds=scalars["seconds"],
        started_at=str(scalars["started_at"]),
        aggregated=int(scalars["aggregated"]),
        neurons=str(scalars["neurons"]),
        counted={str(site): int(n) for site, n in scalars["counted"].items()},
        class_prior=tuple(float(share) for share in scalars["class_prior"]),
        mean_rounds=int(scalars["mean_rounds"]),
        class_counts={str(site): list(n) for site, n in scalars["class_counts"].items()},
        **groups,
    )
