"""What the benchmarks' tables share: means over seeds, and Markdown."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

NONE = "–"
"""Stands where there is no value."""


def mean_of_seeds(values: Iterable[float | None]) -> dict[str, Any]:
    """Mean, sd (of a sample; None for a single value) and n, the number of values there are."""
    found = [value for value in values if value is not None]
    return {
        "mean": float(np.mean(found)) if found else None,
        "sd": float(np.std(found, ddof=1)) if len(found) > 1 else None,
        "n": len(found),
    }


def spread(value: dict[str, Any] | None, digits: int = 3) -> str:
    """Mean ± sd of `mean_of_seeds`."""
    if value is None or value["mean"] is None:
        return NONE
    deviation = "" if value["sd"] is None else f" ± {value['sd']:.{digits}f}"
    return f"{value['mean']:.{digits}f}{deviation}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as it stands in the documentation."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
