"""Several runs' results on their test lesions, side by side."""

from dataclasses import asdict, dataclass
from statistics import mean, stdev
from typing import Any

from common.errors import RunMismatch
from common.metrics import Estimate, MetricSummary, summarize
from server.history.records import RunRecord
from server.report.readings import HEADS, class_codes, head_counts, is_final


@dataclass(frozen=True)
class ComparedHead:
    """The metrics of one head of one run; ``n`` test images."""

    run: str
    head: str
    n: int
    metrics: dict[str, Estimate | None]

    def to_json(self) -> dict[str, Any]:
        """This line as plain JSON values."""
        return {
            "run": self.run,
            "head": self.head,
            "n": self.n,
            **{name: e.to_json() if e else None for name, e in self.metrics.items()},
        }


def compare_runs(records: list[RunRecord]) -> list[ComparedHead]:
    """One line per run and head; RunMismatch for a run that has not been judged on its tests."""
    rows = []
    for record in records:
        if not is_final(record):
            raise RunMismatch(
                f"run {record.run.run_id} has no test results yet ({record.run.state}); finish it "
                f"with 'fedqana simulate --resume {record.run.run_id}'"
            )
        for counts in head_counts(record):
            summary = summarize(counts.pooled, class_codes(record, counts.pooled))
            rows.append(
                ComparedHead(
                    record.run.run_id, HEADS[counts.head], counts.pooled.n, _metrics(summary)
                )
            )
    return rows


@dataclass(frozen=True)
class Spread:
    """A metric's mean and standard deviation (n - 1) over runs; None over fewer than two."""

    mean: float
    deviation: float | None


@dataclass(frozen=True)
class HeadSpread:
    """The metrics of one head over several runs; those that a run has no number for are None."""

    head: str
    runs: int
    metrics: dict[str, Spread | None]

    def to_json(self) -> dict[str, Any]:
        """This line as plain JSON values."""
        return {
            "head": self.head,
            "runs": self.runs,
            **{name: asdict(s) if s else None for name, s in self.metrics.items()},
        }


def spread_over_runs(rows: list[ComparedHead]) -> list[HeadSpread]:
    """Mean and spread of each head over runs that repeat one another with other seeds.

    Unlike an interval over test cases it holds the chance of split, initial weights and training.
    """
    by_head: dict[str, list[ComparedHead]] = {}
    for row in rows:
        by_head.setdefault(row.head, []).append(row)
    return [
        HeadSpread(
            head,
            len(found),
            {name: _spread([row.metrics[name] for row in found]) for name in found[0].metrics},
        )
        for head, found in by_head.items()
    ]


def _spread(estimates: list[Estimate | None]) -> Spread | None:
    values = [e.value for e in estimates if e is not None and e.value is not None]
    if len(values) < len(estimates):
        return None
    return Spread(mean(values), stdev(values) if len(values) > 1 else None)


def _metrics(summary: MetricSummary) -> dict[str, Estimate | None]:
    return {
        "accuracy": summary.accuracy,
        "balanced accuracy": summary.balanced_accuracy,
        "macro-F1": summary.macro_f1,
        "AUC": summary.macro_auc,
        "mel sens. @ 90 % spec.": summary.melanoma_sensitivity,
        "mel sens. @ 95 % spec.": summary.melanoma_sensitivity_95,
    }
