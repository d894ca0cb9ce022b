"""Runs side by side, and their spread over seeds."""

import json
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import pytest
from click.testing import CliRunner

from common.errors import RunMismatch
from common.metrics import summarize
from server.comparison import compare_runs, spread_over_runs
from server.history.records import RunRecord
from server.history.store import open_history
from server.report.readings import HEADS, head_counts
from simulation.cli import cli
from tests.history.examples import save_all
from tests.report import sample_record


def named(record: RunRecord, name: str) -> RunRecord:
    """The same record as another run's."""

    def mine(rows: list) -> list:  # type: ignore[type-arg]
        return [replace(row, run_id=name) for row in rows]

    return RunRecord(
        replace(record.run, run_id=name),
        mine(record.sites),
        mine(record.rounds),
        mine(record.site_results),
        mine(record.versions),
        mine(record.edge_updates),
        mine(record.events),
    )


@pytest.fixture(scope="module")
def two_runs() -> list[RunRecord]:
    """Two runs, of which the second lacks a site's test results."""
    first = sample_record.complete()
    finals = [r for r in first.site_results if r.step == "final"]
    kept = [r for r in first.site_results if r is not finals[0]]
    return [named(first, "a"), named(replace(first, site_results=kept), "b")]


def test_every_head_of_every_run_has_its_line(two_runs: list[RunRecord]) -> None:
    rows = compare_runs(two_runs)
    assert [(row.run, row.head) for row in rows[:2]] == [
        ("a", "float network"),
        ("a", "quantized network"),
    ]
    assert len(rows) == 2 * len(HEADS)
    akida = next(c for c in head_counts(two_runs[0]) if c.head == "akida")
    expected = summarize(akida.pooled, sample_record.CODES).balanced_accuracy
    (row,) = [r for r in rows if (r.run, r.head) == ("a", "Akida program")]
    assert row.metrics["balanced accuracy"] == expected and row.n == akida.pooled.n


def test_the_spread_is_that_of_the_lines(two_runs: list[RunRecord]) -> None:
    rows = compare_runs(two_runs)
    (spread,) = [s for s in spread_over_runs(rows) if s.head == "Akida program"]
    values = [
        estimate.value
        for row in rows
        if row.head == "Akida program"
        for estimate in [row.metrics["accuracy"]]
        if estimate is not None and estimate.value is not None
    ]
    found = spread.metrics["accuracy"]
    assert spread.runs == 2 and found is not None and found.deviation is not None
    assert (found.mean, found.deviation) == pytest.approx((mean(values), stdev(values)))
    assert found.deviation > 0
    alone = spread_over_runs(compare_runs(two_runs[:1]))[0].metrics["accuracy"]
    assert alone is not None and alone.deviation is None


def test_a_run_without_test_results_is_refused() -> None:
    with pytest.raises(RunMismatch, match="no test results yet"):
        compare_runs([sample_record.unfinished()])


def test_the_command(two_runs: list[RunRecord], tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'history.db'}"
    with open_history(url) as history:
        for record in two_runs:
            save_all(history, record)
    arguments = ["runs", "compare", "a", "b", "--database", url]
    lines = json.loads(CliRunner().invoke(cli, [*arguments, "--json"]).output)
    assert [line["run"] for line in lines] == ["a"] * len(HEADS) + ["b"] * len(HEADS)
    spreads = json.loads(CliRunner().invoke(cli, [*arguments, "--spread", "--json"]).output)
    assert [line["runs"] for line in spreads] == [2] * len(HEADS)
    shown = CliRunner().invoke(cli, [*arguments, "--spread"]).output
    mean_shown = f"{spreads[2]['accuracy']['mean']:.3f} ± {spreads[2]['accuracy']['deviation']:.3f}"
    assert "Akida program" in shown and mean_shown in shown
