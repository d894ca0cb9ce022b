"""Moments and spans of time in the words that people use."""

from datetime import UTC, datetime

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_SO_LONG_AGO_THAT_A_DATE_SAYS_MORE = 60 * _DAY


def ago(at: datetime | None, now: datetime | None = None) -> str:
    """How long ago a moment was, e.g. "2 min ago"; "never" for None."""
    if at is None:
        return "never"
    seconds = ((now or datetime.now(UTC)) - at).total_seconds()
    if seconds < 5:  # or ahead, where another machine's clock is
        return "just now"
    if seconds > _SO_LONG_AGO_THAT_A_DATE_SAYS_MORE:
        return f"{at:%Y-%m-%d}"
    return f"{span(seconds)} ago"


def span(seconds: float) -> str:
    """A span of time in one unit, rounded down: "40 s", "2 min", "3 h", "5 days"."""
    if seconds < _MINUTE:
        return f"{max(0, int(seconds))} s"
    if seconds < _HOUR:
        return f"{int(seconds // _MINUTE)} min"
    if seconds < 2 * _DAY:
        return f"{int(seconds // _HOUR)} h"
    return f"{int(seconds // _DAY)} days"


def about(minutes: float) -> str:
    """An estimate of what is left: "under a minute", "about 12 min", "about 1 h 20 min"."""
    whole = round(minutes)
    if whole < 1:
        return "under a minute"
    hours, rest = divmod(whole, 60)
    if not hours:
        return f"about {rest} min"
    return f"about {hours} h {rest} min" if rest else f"about {hours} h"
