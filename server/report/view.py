"""What the report's template lays out: sections of paragraphs, figures and tables of cells."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from common.metrics import Estimate

DASH = "–"


@dataclass(frozen=True)
class Cell:
    """One table cell; ``detail`` stands smaller below ``text``, line by line."""

    text: str
    detail: str = ""
    number: bool = False


@dataclass(frozen=True)
class Table:
    """A captioned table; a row's first cell is its heading; ``folded`` tables open on click."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    folded: bool = False

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers and so align to the right."""
        return [any(row[k].number for row in self.rows) for k in range(len(self.columns))]


@dataclass(frozen=True)
class Picture:
    """A figure as a data URI, with the text that stands in for it."""

    uri: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Section:
    """One heading with what stands under it."""

    title: str
    paragraphs: Sequence[str] = ()
    pictures: Sequence[Picture] = field(default=())
    tables: Sequence[Table] = ()


def words(value: object) -> Cell:
    """A cell of text; a dash for None and for nothing."""
    return Cell(DASH if value is None or value == "" else str(value))


def count(value: int | None) -> Cell:
    """A cell with a whole number, its thousands set apart."""
    return Cell(DASH if value is None else f"{value:,}", number=True)


def estimate(value: Estimate | None) -> Cell:
    """A cell with value, interval and n, or with the note that says why there is none."""
    if value is None:
        return Cell(DASH, "not a class of this run")
    if value.value is None:
        return Cell(DASH, value.note, number=True)
    lines = [f"{value.low:.3f}–{value.high:.3f}", f"n = {value.n:,}", value.note]
    return Cell(f"{value.value:.3f}", "\n".join(filter(None, lines)), number=True)


def share(part: int, whole: int, digits: int = 1) -> Cell:
    """A cell with a percentage and the two counts it comes from."""
    if whole == 0:
        return Cell(DASH, "no cases", number=True)
    return Cell(f"{100 * part / whole:.{digits}f} %", f"{part:,} of {whole:,}", number=True)


def size(n_bytes: int) -> str:
    """Bytes in the unit a person would choose (powers of 1000)."""
    amount, unit = float(n_bytes), "B"
    for larger in ("kB", "MB", "GB"):
        if amount < 999.5:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if amount >= 100 or unit == "B" else f"{amount:.3g} {unit}"


def duration(seconds: float) -> str:
    """Seconds as people write them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def moment(at: datetime | None) -> str:
    """A date and time to the second, with the zone where there is one."""
    return DASH if at is None else at.strftime("%Y-%m-%d %H:%M:%S %Z").rstrip()
