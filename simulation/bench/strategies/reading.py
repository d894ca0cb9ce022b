"""What a record keeps of a finished run's history."""

import math
from typing import Any

from common.metrics import summarize
from server.history.records import RunRecord
from server.plan import RunPlan
from server.report.readings import class_codes, head_counts, pooled, step_counts
from server.step_times import steps_of


def curve(record: RunRecord, plan: RunPlan) -> list[dict[str, Any]]:
    """One dict for each round, in order.

    ``bytes_up`` and ``bytes_down`` are the payloads of the round's training messages from all
    sites and to them, those of updates that were refused too; ``trained`` is the number of sites
    whose update counted, ``steps`` their optimizer steps, ``local_epochs`` the epochs of each;
    ``validation`` is of the combined network on all sites' validation lesions; ``seconds`` is
    the wall time of the training step.
    """
    validated = step_counts(record, "evaluate", "global")
    codes = class_codes(record)
    rounds = []
    for each in record.rounds:
        found = [r for r in record.site_results if r.step == "train" and r.round == each.number]
        counted = [r for r in found if r.accepted]
        by_site = validated.get(each.number)
        held = summarize(pooled(by_site), codes) if by_site else None
        rounds.append(
            {
                "round": each.number,
                "phase": each.phase,
                "bytes_up": sum(r.bytes_up for r in found),
                "bytes_down": sum(r.bytes_down for r in found),
                "trained": len(counted),
                "local_epochs": plan.local_epochs,
                "steps": sum(
                    plan.local_epochs * math.ceil(r.result["examples"] / plan.batch)
                    for r in counted
                ),
                "validation": {
                    "images": held.n if held else 0,
                    "balanced_accuracy": held.balanced_accuracy.value if held else None,
                    "macro_auc": held.macro_auc.value if held else None,
                },
                "seconds": each.seconds.get("train", 0.0),
            }
        )
    return rounds


def totals(record: RunRecord, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Sums over the rounds of `curve`.

    ``local_epochs`` are those of one site that took part in every round, ``site_epochs`` those of
    all sites together; ``seconds`` is the wall time of all steps of all rounds.
    """
    return {
        "bytes_up": sum(r["bytes_up"] for r in rounds),
        "bytes_down": sum(r["bytes_down"] for r in rounds),
        "local_epochs": sum(r["local_epochs"] for r in rounds),
        "site_epochs": sum(r["local_epochs"] * r["trained"] for r in rounds),
        "steps": sum(r["steps"] for r in rounds),
        "training_seconds": round(sum(r["seconds"] for r in rounds), 1),
        "seconds": round(sum(sum(steps_of(r.seconds).values()) for r in record.rounds), 1),
    }


def tested(record: RunRecord) -> dict[str, Any]:
    """`MetricSummary` as JSON of each head, by name, on all sites' test lesions together."""
    return {
        counts.head: summarize(counts.pooled, class_codes(record, counts.pooled)).to_json()
        for counts in head_counts(record)
    }


def refused(record: RunRecord) -> int:
    """How many answers of sites did not count."""
    return sum(not r.accepted for r in record.site_results)


def backend_of(record: RunRecord) -> str:
    """What trained, and what the Akida programs ran on."""
    ran_on = sorted({str(u.result["backend"]) for u in record.edge_updates})
    return f"training: TensorFlow float32 on CPU; programs: {', '.join(ran_on) or 'none'}"
