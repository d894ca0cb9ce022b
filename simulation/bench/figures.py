"""The documentation's curves, drawn from what was measured."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from common.files import writing_to

# Of Okabe & Ito's palette, told apart under every common colour blindness.
COLOURS = {"validation": "#0072B2", "test": "#D55E00"}


def draw_sparsity(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Balanced accuracy of the program against its events, as SVG; bars are deviations of seeds.

    ``rows`` are those of `measurements.sparsity`. Raises StorageFull where there is no room.
    """
    # Without a date and with fixed ids the same figures give the same file.
    with mpl.rc_context({"svg.hashsalt": "fedqana", "font.size": 10}):
        figure = Figure(figsize=(6.0, 3.6), layout="constrained")
        axes = figure.add_subplot()
        for part, colour in COLOURS.items():
            values = [row[part]["akida"] for row in rows]
            axes.errorbar(
                [row["events"]["mean"] for row in rows],
                [value["mean"] for value in values],
                yerr=[value["sd"] for value in values],
                color=colour,
                marker="o",
                capsize=3,
                label=f"{part} lesions",
            )
        lowest = axes.get_ylim()[0]
        for row in rows:
            axes.annotate(
                f"penalty {row['penalty']:g}",
                (row["events"]["mean"], lowest),
                rotation=90,
                ha="right",
                va="bottom",
                fontsize=8,
                color="#555555",
            )
        axes.set_xlabel("events an image")
        axes.set_ylabel("balanced accuracy, Akida program")
        axes.set_xlim(left=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#E5E5E5")
        axes.legend(frameon=False, loc="upper left")
        with writing_to(file):
            figure.savefig(file, format="svg", metadata={"Date": None})
