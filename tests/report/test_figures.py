"""Figures: drawn for any run, the same each time, and with what the record says."""

from typing import get_args

import numpy as np
import pytest
from matplotlib.figure import Figure

from common.messages import FinalHead
from common.metrics import balanced_accuracy
from common.referral_curve import curve_of_counts
from server.report import figures
from server.report.readings import HEADS, head_counts, pooled, step_counts
from tests.report import sample_record

RECORDS = [
    sample_record.complete("scc"),
    sample_record.partial(),
    sample_record.unfinished(),
    sample_record.empty(),
]
DRAWINGS = [
    figures.learning_curves,
    figures.heads_figure,
    figures.referral_figure,
    figures.forgetting_figure,
    figures.bytes_figure,
]


@pytest.mark.parametrize("draw", DRAWINGS)
def test_every_figure_is_drawn_for_every_run(draw: object) -> None:
    assert callable(draw)
    for record in RECORDS:
        figure = draw(record)
        assert isinstance(figure, Figure)
        assert figures.svg_data_uri(figure) == figures.svg_data_uri(draw(record))


def test_learning_curves_plot_the_pooled_metric() -> None:
    record = sample_record.complete()
    axes = figures.learning_curves(record).axes[0]
    curves = {line.get_label(): line for line in axes.lines}
    assert set(sample_record.SITES) <= set(curves)
    expected = [
        balanced_accuracy(pooled(sites))
        for sites in step_counts(record, "evaluate", "global").values()
    ]
    assert list(np.asarray(curves["all sites, global head"].get_ydata())) == expected
    assert list(np.asarray(curves["all sites, global head"].get_xdata())) == [1, 2, 3, 4, 5, 6]
    assert any(np.allclose(line.get_xdata(), sample_record.FIRST_QAT - 0.5) for line in axes.lines)


def test_more_sites_than_colours_share_one_grey_and_one_legend_entry() -> None:
    record = sample_record.complete()
    for copy in ("a", "b", "c"):
        more = sample_record.renamed(sample_record.complete(), copy.__add__)
        record.sites.extend(more.sites)
        record.site_results.extend(more.site_results)
    axes = figures.learning_curves(record).axes[0]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "single sites",
        "all sites, global head",
        "all sites, Akida program",
    ]


def test_confusion_figure_names_every_count() -> None:
    counts = sample_record.counts(0, "rosendahl", 100, 1.0)
    axes = figures.confusion_figure(counts, sample_record.CODES, "title").axes[0]
    shown = sorted(int(text.get_text()) for text in axes.texts)
    assert shown == sorted(counts.confusion[counts.confusion > 0].tolist())
    assert axes.get_yticklabels()[4].get_text() == f"mel ({counts.confusion[4].sum()})"


def test_referral_figure_plots_each_heads_counts() -> None:
    record = sample_record.complete()
    axes = figures.referral_figure(record).axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    for head in head_counts(record):
        expected = [estimate.value for estimate in curve_of_counts(head.pooled)]
        drawn = np.asarray(lines[HEADS[head.head]].get_ydata())
        np.testing.assert_allclose(drawn, np.array(expected, float))
        assert drawn[-1] > drawn[0]  # confident answers are right more often


def test_every_head_of_a_final_test_has_a_name_and_a_colour() -> None:
    assert tuple(HEADS) == get_args(FinalHead)
    assert len({figures.HEAD_COLOURS[head] for head in HEADS}) == len(HEADS)
