"""What local training is doing, for whoever looks at the site: a log line and a small file.

``training.json`` in a hospital's home: run, round, phase, epoch, epochs, loss, when. Simulated
sites, which have no settings file, write none.
"""

import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.messages import TrainAsk
from edge_client.client_folder import CONFIG

log = logging.getLogger("fedqana.training")

FILE = "training.json"


class TrainingProgress:
    """Tells of the epochs of one round's local training; ``phase`` where it is no round's."""

    def __init__(self, home: Path, ask: TrainAsk, phase: str = "") -> None:
        self._path = home / FILE if (home / CONFIG).exists() else None
        self._facts = {
            "run": ask.run,
            "round": ask.round,
            "phase": phase or ask.phase,
            "epochs": ask.epochs,
        }
        self._show(0, None)

    def epoch(self, number: int, loss: float) -> None:
        """An epoch has ended."""
        self._show(number, round(loss, 4))

    def _show(self, number: int, loss: float | None) -> None:
        if self._path is None:
            return
        facts = {**self._facts, "epoch": number, "loss": loss}
        log.info("training", extra={"facts": facts})
        at = datetime.now(UTC).isoformat(timespec="seconds")
        partial = self._path.with_name(f".{FILE}.partial")
        try:
            partial.write_text(json.dumps({**facts, "at": at}))
            partial.replace(self._path)
        except OSError as error:  # nobody looks at it rather than training failing
            log.warning("progress is not shown: %s", error.strerror)


def read_progress(home: Path) -> dict[str, Any] | None:
    """What local training last said; None before its first word."""
    try:
        value = json.loads((home / FILE).read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
