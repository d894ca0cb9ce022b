"""What a simulated run shows on the terminal: a line a step, then a table."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from common.intervals import Estimate
from common.metrics import MetricSummary, summarize
from server.history.records import RunRecord
from server.progress import Progress, listening
from server.report.readings import HEADS, class_codes, head_counts, is_final

METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced\naccuracy",
    "macro_f1": "macro-F1",
    "macro_auc": "AUC",
    "melanoma_sensitivity": "mel. sens. at\n90 % spec.",
}
"""Fields of `MetricSummary` in the final table, with their titles: 80 columns hold them all."""


@contextmanager
def console_progress(quiet: bool) -> Iterator[None]:
    """Show progress on standard error: a spinner for the step under way, a line when it ends."""
    console = Console(stderr=True, quiet=quiet, markup=False, emoji=False, highlight=False)
    started = time.monotonic()
    with console.status("preparing the sites' data") as status:

        def show(progress: Progress) -> None:
            where = f"round {progress.round:>2}/{progress.rounds} {progress.phase:<5} "
            text = f"{where if progress.rounds else ''}{progress.step:<9}"
            if progress.done:
                seconds = f"{time.monotonic() - started:6.0f} s"
                console.print(f"{seconds}  {text} {progress.message}", soft_wrap=True)
            # One line whatever is told: a spinner that wraps leaves pieces behind.
            under_way = f"{text} {'' if progress.done else progress.message}"
            status.update(Text(under_way, no_wrap=True, overflow="ellipsis"))

        with listening(show):
            yield


def headline(record: RunRecord) -> dict[str, MetricSummary]:
    """Pooled metrics of every head on the test lesions; empty before the final evaluation."""
    if not is_final(record):
        return {}
    return {
        counts.head: summarize(counts.pooled, class_codes(record, counts.pooled))
        for counts in head_counts(record)
    }


def print_result(url: str, run: str, report: Path) -> None:
    """The table of all heads, the fit on the chips, and where the report is."""
    from server.history.store import open_history

    with open_history(url, create=False) as history:
        record = history.load_record(run)
    console = Console(markup=False, emoji=False, highlight=False)
    summaries = headline(record)
    n = next((s.n for s in summaries.values()), 0)
    table = Table(
        title=f"Test lesions of all sites, {n} images; below each value its 95 % interval",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    table.add_column("", no_wrap=True)
    for title in METRICS.values():
        table.add_column(title, justify="right", no_wrap=True)
    notes: dict[str, None] = {}
    for head, summary in summaries.items():
        estimates = {name: getattr(summary, name) for name in METRICS}
        table.add_row(HEADS[head], *map(_shown, estimates.values()))
        for name, estimate in estimates.items():
            if estimate is not None and estimate.note:
                notes[f"{METRICS[name].replace(chr(10), ' ')}: {estimate.note}"] = None
    if summaries:
        console.print(table)
    for note in notes:
        console.print(note)
    if record.versions:
        for device, fit in record.versions[-1].fit.items():
            if fit["fits"]:
                passes = "1 pass" if fit["passes"] == 1 else f"{fit['passes']} passes"
                size = f"{fit['program_bytes'] / 1e6:.2f} MB"
                text = f"{fit['nps']} NPs, {passes}, {size}"
            else:
                text = f"does not map: {fit['reason']}"
            console.print(f"{device}: {text}", soft_wrap=True)
    if record.edge_updates:
        result = record.edge_updates[-1].result
        latency, power = result["latency_ms"], result["power_mw"]
        measured = (
            "latency and power: not measured"
            if latency is None and power is None
            else f"latency {latency} ms, power {power} mW"
        )
        console.print(f"Akida ran on: {result['backend']}; {measured}")
    console.print(f"run {run}: {record.run.state}")
    console.print(f"report: {report}", soft_wrap=True)


def _shown(estimate: Estimate | None) -> str:
    if estimate is None or estimate.value is None:
        return "-\n"
    return f"{estimate.value:.3f}\n{estimate.low:.2f}-{estimate.high:.2f}"
