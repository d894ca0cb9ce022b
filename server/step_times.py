"""Where a round's time goes: the wall time of its steps, and of the parts of a step.

In a round's ``seconds`` a step has its name and a part of it ``STEP/PART``, e.g. "evaluate/sites".
Parts of a step add up to no more than the step; what is left is checks, the history and the like.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

CHECKPOINT = "checkpoint"
"""Stands among the steps: saving the run's state, which comes after each of them."""

SITES = "sites"
"""At least one site was at work, by what the sites report of themselves."""

TRANSPORT = "transport"
"""Sites were waited for and none was at work: messages, reading of a site's data, its start."""

_ASKED = ("train", "evaluate", "deploy", "share")
_WENT: dict[str, tuple[str, ...]] = {
    "training at the sites": ("train/sites",),
    "evaluation at the sites": ("evaluate/sites",),
    "deployment at the sites": ("deploy/sites", "share/sites"),
    "combining the updates": ("train/combining",),
    "folding": ("evaluate/folding",),
    "quantizing": ("evaluate/quantizing",),
    "converting": ("bundle/converting",),
    "mapping onto devices": ("bundle/mapping",),
    "saving versions and checkpoints": ("bundle/saving", CHECKPOINT),
    "messages and waiting": tuple(f"{step}/{TRANSPORT}" for step in _ASKED),
}
_REST = "checks, history and the rest"


class StepTimes:
    """A clock for the parts of the step that is under way."""

    def __init__(self) -> None:
        self._parts: dict[str, float] = {}

    def add(self, part: str, seconds: float) -> None:
        """Count seconds towards a part."""
        self._parts[part] = self._parts.get(part, 0.0) + seconds

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the block's wall time towards a part."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - started)

    def finished(self, step: str, seconds: float) -> dict[str, float]:
        """The step's wall time and its parts', by key, to the millisecond; begins the next step."""
        parts, self._parts = self._parts, {}
        found = {step: seconds, **{f"{step}/{part}": value for part, value in parts.items()}}
        return {key: round(value, 3) for key, value in found.items()}


def steps_of(seconds: Mapping[str, float]) -> dict[str, float]:
    """Wall time by step of a round's ``seconds``, without the parts."""
    return {key: value for key, value in seconds.items() if "/" not in key}


def where_time_went(rounds: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Seconds by what they went into, of rounds' ``seconds``; those without parts are left out.

    The values add up to the rounds' steps; empty where no round has parts.
    """
    told = [seconds for seconds in rounds if steps_of(seconds).keys() != seconds.keys()]
    if not told:
        return {}
    found = {
        what: sum(seconds.get(key, 0.0) for seconds in told for key in keys)
        for what, keys in _WENT.items()
    }
    whole = sum(sum(steps_of(seconds).values()) for seconds in told)
    return {**found, _REST: max(0.0, whole - sum(found.values()))}


def busy(spans: Iterable[tuple[float, float]]) -> float:
    """Length of time in which at least one of some spans (start, end) was under way."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
