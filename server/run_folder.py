"""A run's folder: its plan, checkpoint and model versions, and the entry into its loop.

plan.json           settings, fixed at the start
initial.npz         the weights that the network starts from, unless they are drawn at random
checkpoint          state between two steps
versions/<round>/   one bundle a round
report.html         written by `fedqana runs report`
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from common.errors import RunNotFound, StateDamaged
from common.files import write_atomically
from common.qana.initial import RANDOM, start_from, start_id
from common.qana.weights import NamedWeights
from server.plan import RunPlan
from server.transport import Transport

PLAN = "plan.json"
CHECKPOINT = "checkpoint"
INITIAL = "initial.npz"


class StoredPlan(BaseModel):
    """The plan with what its data is called; where the history is, the caller knows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan: RunPlan
    data: str

    @model_validator(mode="before")
    @classmethod
    def _as_it_was(cls, value: Any) -> Any:
        """Runs that began before sites fine-tuned go on and are judged without."""
        if isinstance(value, dict) and isinstance(value.get("plan"), dict):
            return {**value, "plan": {"fine_tuning_epochs": 0, **value["plan"]}}
        return value


class RunFolder:
    """Paths within a run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self, stored: StoredPlan) -> None:
        """Write the plan of a new run."""
        write_atomically(self.path / PLAN, stored.model_dump_json(indent=2).encode())

    def keep_initial(self, content: bytes) -> None:
        """Keep the file of the run's initial weights; nothing where it is empty."""
        if content:
            write_atomically(self.path / INITIAL, content)

    def first_weights(self, plan: RunPlan, n_classes: int) -> NamedWeights:
        """The float network's weights before round 1, float32 by name.

        StateDamaged where the file is gone or is not the one that the plan names.
        """
        path, content = self.path / INITIAL, b""
        if plan.initial != RANDOM:
            content = path.read_bytes() if path.is_file() else b""
            if start_id(content) != plan.initial:
                raise StateDamaged(
                    f"{path} is not what the run was started with; restore it or start a new run"
                )
        return start_from(content, plan.config, n_classes, plan.seed)

    def stored_plan(self) -> StoredPlan:
        """The plan; RunNotFound where there is none, StateDamaged where it is not readable."""
        path = self.path / PLAN
        if not path.is_file():
            raise RunNotFound(
                f"no run in {self.path} (there is no {PLAN}); see 'fedqana runs list'"
            )
        try:
            return StoredPlan.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise StateDamaged(
                f"{path} is not a plan of this version; restore it or start a new run"
            ) from error

    @property
    def checkpoint(self) -> Path:
        """The checkpoint file."""
        return self.path / CHECKPOINT

    def version(self, number: int) -> Path:
        """The bundle of a model version."""
        return self.path / "versions" / str(number)


def coordinate(
    folder: Path, transport: Transport, database: str, bundle_key: bytes | None = None
) -> None:
    """Run or resume the run in ``folder`` until it is finished, its history in ``database``.

    ``bundle_key`` is what versions are signed with before they go to sites.
    """
    from server.history.store import open_history
    from server.rounds import Coordinator

    run = RunFolder(folder)
    stored = run.stored_plan()
    with open_history(database) as history:
        Coordinator(stored.plan, stored.data, run, transport, history, bundle_key).run()
