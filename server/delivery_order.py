"""What a delivery's folder says: which version goes to the sites."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from common.errors import StateDamaged
from common.files import write_atomically
from server.history.records import DELIVERY_OF, Run

DELIVERY = "delivery.json"


class Delivered(BaseModel):
    """Which version is delivered; ``folder`` is its bundle's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    version: int
    folder: str


def delivered_by(run: Run, version: int) -> str:
    """The name RUN:VERSION of what a run calls ``version``; a delivery's is another run's."""
    if run.is_delivery:
        return run.data.removeprefix(DELIVERY_OF)
    return f"{run.run_id}:{version}"


def write_delivery(run_folder: Path, delivered: Delivered) -> None:
    """Make a run's folder that of a delivery."""
    write_atomically(run_folder / DELIVERY, delivered.model_dump_json(indent=1).encode())


def read_delivery(run_folder: Path) -> Delivered | None:
    """What a run's folder delivers; None for a run with rounds."""
    path = run_folder / DELIVERY
    if not path.exists():
        return None
    try:
        return Delivered.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise StateDamaged(f"{path} is not readable; promote the version again") from error
