"""The report's figures, drawn with matplotlib's object interface: no global state."""

import base64
import functools
import io
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from common.metrics import ScoreCounts, balanced_accuracy, summarize
from common.referral_curve import SHARES, curve_of_counts
from server.history.records import RunRecord
from server.report.readings import (
    HEADS,
    class_codes,
    edge_counts,
    forgetting,
    head_counts,
    pooled,
    site_names,
    step_counts,
    switch_round,
    traffic,
)

# Okabe & Ito's palette: told apart under every common colour blindness.
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = (
    "#222222",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
HEAD_COLOURS = {
    "float": SKY,
    "quantized": ORANGE,
    "akida": BLUE,
    "akida_symmetries": "#003F66",
    "chip": VERMILION,
    "combined": GREEN,
    "symmetries": PURPLE,
}
_SITE_COLOURS = (SKY, ORANGE, GREEN, PURPLE, "#999999", "#B8A200", "#7A4FBF", "#8C564B")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
_STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#E5E5E5",
    "axes.axisbelow": True,
    "legend.frameon": False,
    # Names of sites and classes are shown as they are, never parsed as formulae.
    "text.parse_math": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "fedqana",
}
_P = ParamSpec("_P")


def styled(draw: Callable[_P, Figure]) -> Callable[_P, Figure]:
    """A function that draws a figure, in the style that all of them share."""

    @functools.wraps(draw)
    def in_style(*args: _P.args, **kwargs: _P.kwargs) -> Figure:
        with mpl.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return in_style


@styled
def learning_curves(record: RunRecord) -> Figure:
    """Balanced accuracy on validation lesions over the rounds: each site, all pooled, Akida."""
    figure = Figure(figsize=(8.5, 4.2), layout="constrained")
    axes = figure.add_subplot()
    by_round = step_counts(record, "evaluate", "global")
    if not by_round:
        return _empty(figure, axes)
    names = [n for n in site_names(record) if any(n in sites for sites in by_round.values())]
    # More sites than colours are one grey bundle: their spread still shows.
    coloured = len(names) <= len(_SITE_COLOURS)
    for index, name in enumerate(names):
        values = {
            k: balanced_accuracy(sites[name]) for k, sites in by_round.items() if name in sites
        }
        _line(
            axes,
            values,
            label=_short(name) if coloured else ("single sites" if index == 0 else None),
            color=_SITE_COLOURS[index] if coloured else "#BBBBBB",
            marker=_MARKERS[index] if coloured else None,
            linewidth=1,
            markersize=4,
        )
    pooled_values = {k: balanced_accuracy(pooled(sites)) for k, sites in by_round.items()}
    _line(
        axes, pooled_values, label="all sites, global head", color=BLACK, linewidth=2.5, marker="."
    )
    akida = {k: balanced_accuracy(pooled(s)) for k, s in edge_counts(record, "akida").items()}
    _line(
        axes,
        akida,
        label="all sites, Akida program",
        color=BLUE,
        linewidth=2.5,
        linestyle="--",
        marker=".",
    )
    switch = switch_round(record)
    if switch is not None and switch > min(by_round):
        axes.axvline(switch - 0.5, color=VERMILION, linewidth=1, linestyle=":")
        axes.annotate(
            "quantization-aware",
            (switch - 0.5, 1),
            xycoords=("data", "axes fraction"),
            xytext=(4, -12),
            textcoords="offset points",
            color=VERMILION,
            fontsize=9,
        )
    axes.set(ylabel="balanced accuracy (validation)", ylim=(0, 1))
    _round_axis(axes, by_round)
    _legend_outside(axes)
    return figure


@styled
def heads_figure(record: RunRecord) -> Figure:
    """The headline metrics of all heads with their 95 % intervals."""
    figure = Figure(figsize=(8.5, 3.8), layout="constrained")
    axes = figure.add_subplot()
    heads = head_counts(record)
    if not heads:
        return _empty(figure, axes)
    totals = [head.pooled for head in heads]
    codes = class_codes(record, *totals)
    titles = ["accuracy", "balanced\naccuracy", "macro-F1", "AUC", "melanoma sens.\nat 90 % spec."]
    width = 0.84 / len(heads)  # so that the next metric's are apart
    for index, (head, counts) in enumerate(zip(heads, totals, strict=True)):
        s = summarize(counts, codes)
        metrics = [s.accuracy, s.balanced_accuracy, s.macro_f1, s.macro_auc, s.melanoma_sensitivity]
        for place, metric in enumerate(metrics):
            if metric is None or metric.value is None:
                continue
            assert metric.low is not None and metric.high is not None
            axes.errorbar(
                place + (index - (len(heads) - 1) / 2) * width,
                metric.value,
                [[metric.value - metric.low], [metric.high - metric.value]],
                color=HEAD_COLOURS[head.head],
                marker=_MARKERS[index],
                markersize=6,
                capsize=3,
                linestyle="none",
                label=HEADS[head.head] if place == 0 else None,
            )
    axes.set(ylabel="value with 95 % interval", ylim=(0, 1.02), xlim=(-0.5, len(titles) - 0.5))
    axes.set_xticks(range(len(titles)), titles)
    axes.grid(axis="x", visible=False)
    _legend_outside(axes)
    return figure


@styled
def referral_figure(record: RunRecord) -> Figure:
    """Accuracy of what is left over the share of cases that is referred, for each head."""
    figure = Figure(figsize=(8.5, 3.8), layout="constrained")
    axes = figure.add_subplot()
    heads = head_counts(record)
    if not heads:
        return _empty(figure, axes)
    lowest = 1.0
    for index, head in enumerate(heads):
        curve = curve_of_counts(head.pooled)
        values = [np.nan if e.value is None else e.value for e in curve]
        lowest = min([lowest, *(value for value in values if np.isfinite(value))])
        axes.plot(
            SHARES,
            values,
            color=HEAD_COLOURS[head.head],
            marker=_MARKERS[index],
            markersize=4,
            linewidth=1.5,
            label=HEADS[head.head],
        )
        # Of the heads in service alone: seven bands over each other would hide the lines.
        if head.head == heads[-1].head:
            low = [np.nan if e.low is None else e.low for e in curve]
            high = [np.nan if e.high is None else e.high for e in curve]
            axes.fill_between(SHARES, low, high, color=HEAD_COLOURS[head.head], alpha=0.15, lw=0)
    axes.set(
        xlabel="share of cases referred, the least confident first",
        ylabel="accuracy of the others",
        xlim=(-0.01, 0.51),
        ylim=(max(0.0, lowest - 0.1), 1.01),
    )
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1))
    _legend_outside(axes)
    return figure


@styled
def confusion_figure(counts: ScoreCounts, codes: Sequence[str], title: str) -> Figure:
    """Confusion matrix: cases in the cells, coloured by their share of the true class."""
    n_classes = counts.n_classes
    side = 0.52 * max(n_classes, 4)
    figure = Figure(figsize=(side + 2.4, side + 1.2), layout="compressed")
    axes = figure.add_subplot()
    cases = counts.confusion.sum(axis=1, keepdims=True)
    shares = counts.confusion / np.maximum(cases, 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(counts.confusion > 0):
        axes.text(
            column,
            row,
            f"{counts.confusion[row, column]}",
            ha="center",
            va="center",
            fontsize=9,
            color="white" if shares[row, column] > 0.55 else BLACK,
        )
    names = [_short(code, 12) for code in codes]
    axes.set_xticks(range(n_classes), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(
        range(n_classes), [f"{name} ({k})" for name, k in zip(names, cases[:, 0], strict=True)]
    )
    axes.set(xlabel="predicted class", ylabel="true class (cases)", title=title)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, fraction=0.045, pad=0.02, format=PercentFormatter(xmax=1))
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    return figure


@styled
def forgetting_figure(record: RunRecord) -> Figure:
    """Chip head before and after each round's new cases: on known and on new classes."""
    tallies = forgetting(record)
    has_new = any(t[key].n for t in tallies.values() for key in t if key.startswith("new"))
    figure = Figure(figsize=(8.5, 3.4), layout="constrained")
    panels = figure.subplots(1, 2 if has_new else 1, sharey=True, squeeze=False)[0]
    if not tallies:
        return _empty(figure, panels[0])
    for axes, kind, title in zip(
        panels, ("old", "new"), ("known classes", "new classes"), strict=False
    ):
        for number, tally in tallies.items():
            ends = [tally.get(f"{kind}_before"), tally.get(f"{kind}_after")]
            values = [e.correct / e.n if e is not None and e.n else None for e in ends]
            if values[0] is not None and values[1] is not None:
                axes.plot([number, number], values, color="#999999", linewidth=1.5, zorder=1)
            for value, face in zip(values, ("white", VERMILION), strict=True):
                if value is not None:
                    axes.plot(
                        number, value, "o", color=VERMILION, markerfacecolor=face, markersize=7
                    )
        axes.set(title=title, ylim=(-0.03, 1.03))
        _round_axis(axes, tallies)
    panels[0].set_ylabel("accuracy of the chip head")
    for face, label in (("white", "before learning"), (VERMILION, "after learning")):
        panels[-1].plot([], [], "o", color=VERMILION, markerfacecolor=face, label=label)
    _legend_outside(panels[-1])
    return figure


@styled
def bytes_figure(record: RunRecord) -> Figure:
    """Message payloads of all sites together, per round and direction."""
    figure = Figure(figsize=(8.5, 2.8), layout="constrained")
    axes = figure.add_subplot()
    rounds = traffic(record)
    if not rounds:
        return _empty(figure, axes)
    for offset, direction, colour in ((-0.2, 0, BLUE), (0.2, 1, ORANGE)):
        axes.bar(
            [number + offset for number in rounds],
            [sum(pair[direction] for pair in sites.values()) / 1e6 for sites in rounds.values()],
            width=0.4,
            color=colour,
            label=("to the sites", "from the sites")[direction],
        )
    axes.set_ylabel("payload, all sites (MB)")
    _round_axis(axes, rounds)
    axes.grid(axis="x", visible=False)
    _legend_outside(axes)
    return figure


def _line(axes: Axes, values: dict[int, float | None], **style: Any) -> None:
    """A line over the rounds that have a value; a gap where one has too few cases."""
    if any(value is not None for value in values.values()):
        points = [np.nan if value is None else value for value in values.values()]
        axes.plot(list(values), points, **style)


def _round_axis(axes: Axes, rounds: Iterable[int]) -> None:
    numbers = list(rounds)
    axes.set(xlabel="round", xlim=(min(numbers) - 0.6, max(numbers) + 0.6))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _legend_outside(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:  # matplotlib warns of a legend without entries
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)


def _empty(figure: Figure, axes: Axes) -> Figure:
    axes.set_axis_off()
    axes.text(0.5, 0.5, "nothing reported yet", ha="center", va="center", color="#777777")
    return figure


def _short(name: str, length: int = 22) -> str:
    """A name that fits a legend and that matplotlib does not hide for its first underscore."""
    shown = name if len(name) <= length else name[: length - 1] + "…"
    return f" {shown}" if shown.startswith("_") else shown


def svg(figure: Figure) -> bytes:
    """The figure as an SVG file; equal figures give equal bytes."""
    stream = io.BytesIO()
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; the tables have it in full.
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()


def svg_data_uri(figure: Figure) -> str:
    """The figure as an SVG in a data URI; equal figures give equal text."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg(figure)).decode("ascii")
