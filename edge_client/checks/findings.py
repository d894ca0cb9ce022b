"""What a check found: `ok` or a warning or a failure, in one line."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Standing = Literal["ok", "warning", "failed", "not checked"]

_LONGEST = 600


@dataclass(frozen=True)
class Outcome:
    """How a check ended; ``text`` says what is wrong and what to do, or a few facts."""

    standing: Standing
    text: str


@dataclass(frozen=True)
class Finding:
    """One line of the result; ``seconds`` is how long the check took."""

    check: str
    standing: Standing
    text: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Check:
    """One thing to look at.

    Parameters
    ----------
    name : str
    look : callable
        Returns an Outcome; a FedqanaError that it raises counts as a failure.
    seconds : float
        After which it counts as not ended.
    too_slow : Outcome, optional
        What is said then, in place of a failure.
    """

    name: str
    look: Callable[[], Outcome]
    seconds: float = 5.0
    too_slow: Outcome | None = None


def ok(text: str) -> Outcome:
    """All is well; ``text`` are facts worth seeing."""
    return Outcome("ok", text)


def warning(text: str) -> Outcome:
    """It works, but not for ever or not well."""
    return Outcome("warning", text)


def failed(text: str) -> Outcome:
    """To be mended."""
    return Outcome("failed", text)


def not_checked(text: str) -> Outcome:
    """Something else must be mended first."""
    return Outcome("not checked", text)


def one_line(text: str) -> str:
    """``text`` in one printable line; some of it may come from another machine."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    line = " ".join(plain.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."


def counted(n: int, one: str, many: str | None = None) -> str:
    """E.g. ``1 case``, ``2 cases``."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def megabytes(n: float) -> str:
    """A size for people."""
    return f"{n / 1e9:.1f} GB" if n >= 1e9 else f"{n / 1e6:.0f} MB"


def seconds_in_words(n: float) -> str:
    """A length of time for people."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if round(n / size) >= 2:
            return f"{n / size:.0f} {unit}"
    return f"{n:.1f} seconds"
