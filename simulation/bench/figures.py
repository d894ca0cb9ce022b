"""The documentation's curves, drawn from what was measured, in the style of the report's."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from server.report.figures import BLUE, VERMILION, styled

COLOURS = {"validation": BLUE, "test": VERMILION}


@styled
def accuracy_against_events(rows: Sequence[dict[str, Any]]) -> Figure:
    """Balanced accuracy of the program against its events; bars are deviations of seeds.

    ``rows`` are those of `measurements.sparsity`.
    """
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
    axes.legend(loc="upper left")
    return figure
