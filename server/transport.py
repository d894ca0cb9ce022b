"""How the coordinator reaches sites, as the round loop sees it: no engine in sight."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from common.messages import Answer, Instruction

Late = Callable[[list[str], float], None]
"""Called while waiting, with the nodes still missing and the seconds left."""


@dataclass(frozen=True)
class Delivery:
    """What came back from one node.

    ``answer`` is None and ``problem`` a short code where the reply was an error of the engine
    or had not the agreed form. Bytes are payloads without framing. ``at`` is when it came, on
    `time.monotonic`'s clock.
    """

    answer: Answer | None
    problem: str
    bytes_down: int
    bytes_up: int
    at: float = field(default_factory=time.monotonic, compare=False)


class Transport(Protocol):
    """Sends instructions to nodes and collects what comes back within a deadline."""

    def nodes(self) -> list[str]:
        """Ids of the nodes connected now, as text."""
        ...

    def registered(self) -> Mapping[str, str] | None:
        """Names of sites by node, as their keys were registered; None where sites name themselves.

        A simulation has no keys.
        """
        ...

    def exchange(
        self, instructions: Mapping[str, Instruction], deadline: float, late: Late
    ) -> dict[str, Delivery]:
        """Send each node its instruction; nodes without a reply in time are absent."""
        ...
