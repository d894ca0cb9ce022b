"""Training happens when the policy allows it, and what it takes is counted, day by day."""

import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path

from common.errors import FedqanaError, SiteRefused, StateDamaged
from common.file_lock import file_lock
from common.files import write_atomically
from edge_client.policy import TrainingPolicy

SPENT = "training-time.json"
_WAIT_SECONDS = 60.0
_COUNTED_EVERY = 30.0
"""Seconds of training that are not counted, at most, when its process is killed."""

log = logging.getLogger("fedqana.training")


@contextmanager
def allowed_training(
    home: Path, policy: TrainingPolicy, now: datetime | None = None
) -> Iterator[None]:
    """Train within the block; its time counts for the local calendar day on which it began.

    Raises SiteRefused("declined") where the policy does not allow training now. Nothing is
    written where the policy has no limit of hours.
    """
    now = now or datetime.now()
    limited = policy.hours_per_day < 24
    objection = policy.objection(now, spent_seconds(home, now.date()) if limited else 0.0)
    if objection:
        raise SiteRefused("declined", f"training is declined: {objection}")
    if not limited:
        yield
        return
    account = _Account(home, now.date())
    account.start()
    try:
        yield
    finally:
        account.close()


class _Account(threading.Thread):
    """Counts while it goes on, so that training that is killed counts, too."""

    def __init__(self, home: Path, day: date) -> None:
        super().__init__(name="training-time", daemon=True)
        self._home, self._day = home, day
        self._counted = time.monotonic()
        self._ended = threading.Event()

    def run(self) -> None:
        """Count every now and then."""
        while not self._ended.wait(_COUNTED_EVERY):
            try:
                self._count()
            except FedqanaError as error:
                log.warning("training time is not counted yet: %s", error)

    def close(self) -> None:
        """Count the rest; raises what keeps it from being counted."""
        self._ended.set()
        self.join()
        self._count()

    def _count(self) -> None:
        now = time.monotonic()
        _add(self._home, self._day, now - self._counted)
        self._counted = now


def spent_seconds(home: Path, day: date) -> float:
    """Seconds of training that were counted for a day."""
    return _counted(home / SPENT).get(day.isoformat(), 0.0)


def _counted(path: Path) -> dict[str, float]:
    """Seconds by day, of the last two days on which there was training."""
    try:
        return {str(day): float(seconds) for day, seconds in json.loads(path.read_bytes()).items()}
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError, TypeError) as error:
        raise StateDamaged(
            f"{path} does not say how long was trained today; remove it to begin from 0"
        ) from error


def _add(home: Path, day: date, seconds: float) -> None:
    busy = f"another process keeps {home / SPENT} locked; end it, then try again"
    with file_lock(home / f"{SPENT}.lock", _WAIT_SECONDS, busy):
        counted = _counted(home / SPENT)
        counted[day.isoformat()] = round(counted.get(day.isoformat(), 0.0) + seconds, 3)
        # Two days: training that began before midnight may end after another one of today.
        kept = dict(sorted(counted.items())[-2:])
        write_atomically(home / SPENT, json.dumps(kept).encode())
