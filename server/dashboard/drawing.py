"""The run page's figures as SVG files: drawn once, for wide and narrow, light and dark screens."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeGuard

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from server.dashboard.source import Held
from server.history.records import RunRecord
from server.report import figures
from server.report.readings import head_counts, step_counts, switch_round

_KEPT = 96
_WIDE, _NARROW = (6.6, 4.3), (4.1, 4.6)
"""Inches; with these, letters are as large as those of the page beside them."""
_INK = "#1c1f23"
_LOOK = {
    "savefig.transparent": True,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": "#5c6570",
    "xtick.color": "#5c6570",
    "ytick.color": "#5c6570",
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
}
_DARK = {
    _INK: "#e8ebee",
    figures.BLACK: "#ffffff",
    figures.BLUE: "#5aa9e6",
    "#5c6570": "#a3acb5",
    "#e5e5e5": "#343b42",
    "#7a4fbf": "#b493ec",
    "#8c564b": "#cf9a8d",
    "#bbbbbb": "#707a84",
}
"""Colours that would not stand out from a dark page, and those in their place."""
_SITE_COLOURS = figures.SKY, figures.ORANGE, figures.GREEN, figures.PURPLE, "#999999", "#8C564B"


@dataclass(frozen=True)
class Drawn:
    """One figure: how it is drawn, when there is something to draw, and its words."""

    title: str
    alt: str
    caption: str
    draw: Callable[[RunRecord], Figure]
    applies: Callable[[RunRecord], bool]


class Drawings:
    """Figures that were asked for lately."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str, bool], tuple[bytes, bytes]] = OrderedDict()
        # matplotlib's settings are the process's: one thread at a time.
        self._lock = threading.Lock()

    def svg(self, held: Held, name: str, narrow: bool, dark: bool) -> bytes:
        """A figure of `FIGURES` as an SVG file; KeyError for another name."""
        drawn = FIGURES[name]
        key = held.mark, name, narrow
        with self._lock:
            pair = self._kept.pop(key, None) or _draw(drawn, held.record, narrow)
            self._kept[key] = pair
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return pair[dark]


def shown(record: RunRecord) -> list[str]:
    """Names of the figures for which a run has reported something."""
    return [name for name, drawn in FIGURES.items() if drawn.applies(record)]


def _draw(drawn: Drawn, record: RunRecord, narrow: bool) -> tuple[bytes, bytes]:
    with mpl.rc_context(_LOOK):
        figure = drawn.draw(record)
        light = figures.svg(_fitted(figure, narrow))
    dark = light
    for colour, instead in _DARK.items():
        dark = dark.replace(colour.lower().encode(), instead.encode())
    # Text is paths, black unless said otherwise.
    return light, dark.replace(b"<svg ", b'<svg fill="%s" ' % _DARK[_INK].encode(), 1)


@figures.styled
def _fitted(figure: Figure, narrow: bool) -> Figure:
    """The figure in a size for the page, its legend below."""
    figure.set_size_inches(*(_NARROW if narrow else _WIDE))
    for axes in figure.axes:
        legend = axes.get_legend()
        if legend is not None:
            handles, labels = axes.get_legend_handles_labels()
            legend.remove()
            figure.legend(
                handles, labels, loc="outside lower left", ncols=2 if narrow else 3, fontsize=9
            )
        if narrow and any("\n" in label.get_text() for label in axes.get_xticklabels()):
            axes.tick_params(axis="x", labelrotation=60, labelsize=9)
    return figure


@figures.styled
def loss_curves(record: RunRecord) -> Figure:
    """Training loss of each round's last local epoch: each site, and all by their cases."""
    figure = Figure(figsize=(8.5, 3.6), layout="constrained")
    axes = figure.add_subplot()
    by_site: dict[str, dict[int, tuple[float, float]]] = {}
    for result in record.site_results:
        loss, examples = result.result.get("loss"), result.result.get("examples")
        if result.step == "train" and result.accepted and _number(loss) and _number(examples):
            by_site.setdefault(result.site, {})[result.round] = loss, examples
    rounds = sorted({number for losses in by_site.values() for number in losses})
    span = range(rounds[0], rounds[-1] + 1)
    coloured = len(by_site) <= len(_SITE_COLOURS)
    for index, (site, losses) in enumerate(sorted(by_site.items())):
        label = site if coloured else ("single sites" if index == 0 else "")
        axes.plot(
            span,
            [losses.get(number, (np.nan, 0))[0] for number in span],
            label=f" {label}" if label else None,  # a name with an underscore first is hidden
            color=_SITE_COLOURS[index] if coloured else "#BBBBBB",
            linewidth=1,
            marker="o" if coloured else None,
            markersize=3,
        )
    pooled = []
    for number in span:
        found = [losses[number] for losses in by_site.values() if number in losses]
        total = sum(n for _, n in found)
        pooled.append(sum(x * n for x, n in found) / total if total else np.nan)
    label = "all sites, by cases"
    axes.plot(span, pooled, label=label, color=figures.BLACK, linewidth=2.5, marker=".")
    switch = switch_round(record)
    if switch is not None and switch > span[0]:
        axes.axvline(switch - 0.5, color=figures.VERMILION, linewidth=1, linestyle=":")
    axes.set(ylabel="training loss", xlabel="round", xlim=(span[0] - 0.6, span[-1] + 0.6))
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)
    return figure


def _number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _has_loss(record: RunRecord) -> bool:
    return any(
        r.step == "train"
        and r.accepted
        and _number(r.result.get("loss"))
        and _number(r.result.get("examples"))
        for r in record.site_results
    )


FIGURES = {
    "learning": Drawn(
        "Balanced accuracy",
        "Balanced accuracy on validation lesions over the rounds, per site and of all sites; the "
        "numbers are in the table of rounds.",
        "On validation lesions. A site's curve has a gap where it has too few cases; the dotted "
        "line is the switch to quantization-aware training.",
        figures.learning_curves,
        lambda record: bool(step_counts(record, "evaluate", "global")),
    ),
    "loss": Drawn(
        "Training loss",
        "Training loss over the rounds, per site and of all sites; the numbers are in the table "
        "of rounds.",
        "Of each round's last local epoch. The two phases have different losses: compare within "
        "one.",
        loss_curves,
        _has_loss,
    ),
    "heads": Drawn(
        "The model's forms",
        "Headline metrics of each form of the model with 95 % intervals.",
        "From the float network to the chip, with 95 % intervals: on test lesions once the run "
        "is finished, on validation lesions before.",
        figures.heads_figure,
        lambda record: bool(head_counts(record)),
    ),
    "bytes": Drawn(
        "Traffic",
        "Bytes per round and direction; the numbers are in the table of rounds.",
        "Message payloads of all sites together.",
        figures.bytes_figure,
        lambda record: bool(record.site_results),
    ),
}
