"""What a simulated run shows on the terminal: a line a step, then a table."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from common.intervals import Estimate
from common.metrics import MetricSummary, summarize
from common.score_counts import ScoreCounts
from server.history.records import RunRecord
from server.progress import Progress, listening

HEADS = {
    "float": "float network",
    "quantized": "quantized (Keras)",
    "akida": "Akida program",
    "chip": "learned on the chip",
}


@contextmanager
def console_progress(quiet: bool) -> Iterator[None]:
    """Show progress on standard error: a spinner for the step under way, a line when it ends."""
    console = Console(stderr=True, quiet=quiet, highlight=False)
    started = time.monotonic()
    with console.status("preparing the sites' data") as status:

        def show(progress: Progress) -> None:
            where = f"round {progress.round:>2}/{progress.rounds} {progress.phase:<5}"
            text = f"{where} {progress.step:<9} {progress.message}"
            if progress.done:
                console.print(f"{time.monotonic() - started:6.0f} s  {text}", soft_wrap=True)
            status.update(text)

        with listening(show):
            yield


def headline(record: RunRecord) -> dict[str, MetricSummary]:
    """Pooled metrics of every head on the test lesions; empty before the final evaluation."""
    results = [r for r in record.site_results if r.step == "final" and r.accepted]
    summaries = {}
    for head in HEADS:
        found = [ScoreCounts.from_json(r.result[head]) for r in results if head in r.result]
        if found:
            pooled = sum(found[1:], found[0])
            summaries[head] = summarize(pooled, record.run.classes)
    return summaries


def print_result(url: str, run: str, report: Path | None) -> None:
    """The table of all heads, the fit on the chips, and where the report is."""
    from server.history.store import open_history

    with open_history(url, create=False) as history:
        record = history.load_record(run)
    console = Console(highlight=False)
    summaries = headline(record)
    n = next((s.n for s in summaries.values()), 0)
    table = Table(title=f"Test lesions of all sites, {n} images (95 % interval)")
    for column in ("", "accuracy", "balanced acc.", "macro-F1", "AUC", "mel sens. @ 90 % spec."):
        table.add_column(column, justify="left" if not column else "right")
    for head, summary in summaries.items():
        table.add_row(
            HEADS[head],
            _shown(summary.accuracy),
            _shown(summary.balanced_accuracy),
            _shown(summary.macro_f1),
            _shown(summary.macro_auc),
            _shown(summary.melanoma_sensitivity),
        )
    console.print(table)
    if record.versions:
        for device, fit in record.versions[-1].fit.items():
            text = (
                f"{fit['nps']} NPs, {fit['passes']} pass, {fit['program_bytes'] / 1e6:.2f} MB"
                if fit["fits"]
                else f"does not map: {fit['reason']}"
            )
            console.print(f"{device}: {text}")
    if record.edge_updates:
        backend = record.edge_updates[-1].result["backend"]
        console.print(f"Akida ran on: {backend}; latency and power: not measured")
    console.print(f"run {run}: {record.run.state}")
    if report is not None:
        console.print(f"report: {report}", soft_wrap=True)


def _shown(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    if estimate.value is None:
        return estimate.note
    return f"{estimate.value:.3f} ({estimate.low:.2f}-{estimate.high:.2f})"
