"""What the round loop is doing, for whoever shows it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """One moment of a run: the step that begins or has ended, and a line about it.

    ``waiting`` names the sites that have not answered yet, ``left`` the seconds they still have.
    """

    run: str
    round: int
    rounds: int
    phase: str
    step: str
    message: str
    done: bool
    waiting: tuple[str, ...] = ()
    left: float | None = None


Listener = Callable[[Progress], None]
_listeners: list[Listener] = []


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tell ``listener`` of all progress in this process, also from Flower's server thread."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def tell(progress: Progress) -> None:
    """Tell everyone who listens."""
    for listener in list(_listeners):
        listener(progress)
