"""The figure of strategies: validation balanced accuracy over what the sites sent."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from server.report.figures import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, styled
from simulation.bench.strategies.rows import STRATEGIES

COLOURS = dict(zip(STRATEGIES, (BLACK, SKY, VERMILION, ORANGE, BLUE, GREEN, PURPLE), strict=True))
_COLUMNS = 3


@styled
def accuracy_over_bytes(rows: Sequence[dict[str, Any]]) -> Figure:
    """A panel for each layout: means over seeds, a band of one deviation; open: quantized rounds.

    ``rows`` are those of `table.summarized`.
    """
    layouts = list(dict.fromkeys(row["sites"] for row in rows))
    columns = min(_COLUMNS, len(layouts))
    lines = math.ceil(len(layouts) / columns)
    figure = Figure(figsize=(1.6 + 3.6 * columns, 0.6 + 2.9 * lines), layout="constrained")
    panels = list(figure.subplots(lines, columns, sharey=True, squeeze=False).flat)
    for axes, layout in zip(panels, layouts, strict=False):
        for row in (row for row in rows if row["sites"] == layout):
            colour = COLOURS[row["strategy"]]
            sent = np.array([point["mb_up"]["mean"] for point in row["curve"]])
            mean, sd = (
                np.array([point["balanced_accuracy"][key] for point in row["curve"]], float)
                for key in ("mean", "sd")
            )
            quantized = np.array([point["phase"] == "qat" for point in row["curve"]])
            axes.plot(sent, mean, color=colour, label=row["strategy"])
            axes.plot(sent[~quantized], mean[~quantized], ".", color=colour)
            axes.plot(
                sent[quantized], mean[quantized], "o", color=colour, markerfacecolor="white",
                markersize=5,
            )  # fmt: skip
            if np.isfinite(sd).any():
                axes.fill_between(sent, mean - sd, mean + sd, color=colour, alpha=0.15, lw=0)
        axes.set(title=layout, xlabel="MB from all sites", xlim=(0, None), ylim=(0, None))
    for axes in panels[len(layouts) :]:
        axes.set_axis_off()
    figure.supylabel("balanced accuracy (validation)", fontsize=10)
    named = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            named[label] = handle
    figure.legend(
        [named[name] for name in STRATEGIES if name in named],
        [name for name in STRATEGIES if name in named],
        loc="outside right upper",
    )
    return figure
