"""Several runs' results on their test lesions, side by side."""

from dataclasses import dataclass
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


def _metrics(summary: MetricSummary) -> dict[str, Estimate | None]:
    return {
        "accuracy": summary.accuracy,
        "balanced accuracy": summary.balanced_accuracy,
        "macro-F1": summary.macro_f1,
        "AUC": summary.macro_auc,
        "mel sens. @ 90 % spec.": summary.melanoma_sensitivity,
    }
