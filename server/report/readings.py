"""What the report reads out of a run's record: counts by head, round and site.

The history's JSON payloads are open-ended; whatever is missing or malformed in them is
treated as not reported, so that a report can always be written.
"""

import functools
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from common.metrics import ScoreCounts
from server.history.records import EdgeUpdate, RunRecord

HEADS = {
    "float": "float network",
    "quantized": "quantized network",
    "akida": "Akida program",
    "akida_symmetries": "program, eight views",
    "chip": "chip head",
    "combined": "both heads",
    "symmetries": "both, eight views",
}
"""The forms of the model, in the order in which they are made of each other; last what a site
answers: the program's head and the chip's together. By one view of an image, and where a run
asks for it by eight."""

_EDGE_KEY = {"quantized": "quantized", "akida": "akida", "chip": "chip_after"}


SiteCounts = dict[str, ScoreCounts]
"""Counts by the name of the site that reported them."""


@dataclass(frozen=True)
class HeadCounts:
    """What the sites counted of one head in one round; at least one site did."""

    head: str
    round: int
    by_site: SiteCounts

    @property
    def pooled(self) -> ScoreCounts:
        """The counts of all sites together."""
        return pooled(self.by_site)


@dataclass(frozen=True)
class Tally:
    """Correct answers among n cases."""

    correct: int = 0
    n: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.correct + other.correct, self.n + other.n)


def mapping(value: Any) -> dict[str, Any]:
    """``value`` where it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def whole(value: Any) -> int | None:
    """``value`` where it is a non-negative integer, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def pooled(by_site: SiteCounts) -> ScoreCounts:
    """Sum of the counts of all sites; at least one."""
    return functools.reduce(operator.add, by_site.values())


def class_codes(record: RunRecord, *counts: ScoreCounts) -> tuple[str, ...]:
    """The run's class codes, with numbers for classes that only the counts know."""
    codes = record.run.classes
    n_classes = max([len(codes), *(c.n_classes for c in counts)])
    return codes + tuple(f"class {index}" for index in range(len(codes), n_classes))


def site_names(record: RunRecord) -> list[str]:
    """Names of all sites that the record mentions, the registered ones first."""
    names = [s.name for s in record.sites]
    names += [r.site for r in record.site_results] + [u.site for u in record.edge_updates]
    return list(dict.fromkeys(names))


def is_final(record: RunRecord) -> bool:
    """Whether any site has judged the final model on its test lesions."""
    return any(r.step == "final" and r.accepted for r in record.site_results)


def head_counts(record: RunRecord) -> list[HeadCounts]:
    """Counts of each head: of the final test, else of the latest validation, in HEADS order."""
    by_head: dict[str, HeadCounts] = {}
    if is_final(record):
        for head in HEADS:
            for number, by_site in step_counts(record, "final", head).items():
                by_head[head] = HeadCounts(head, number, by_site)
    else:
        phases = {r.number: r.phase for r in record.rounds}
        for head, key in _EDGE_KEY.items():
            for number, by_site in edge_counts(record, key).items():
                by_head[head] = HeadCounts(head, number, by_site)
        for number, by_site in step_counts(record, "evaluate", "global").items():
            head = "quantized" if phases.get(number) == "qat" else "float"
            by_head[head] = HeadCounts(head, number, by_site)
    return [by_head[head] for head in HEADS if head in by_head]


def step_counts(record: RunRecord, step: str, key: str) -> dict[int, SiteCounts]:
    """Per round, what the sites counted under ``key`` of a step's accepted results."""
    return _by_round(
        (r.round, r.site, r.result.get(key))
        for r in record.site_results
        if r.step == step and r.accepted
    )


def edge_counts(record: RunRecord, key: str) -> dict[int, SiteCounts]:
    """Per round, what the sites counted under ``key`` of their edge updates."""
    return _by_round((u.round, u.site, u.result.get(key)) for u in record.edge_updates)


def _by_round(entries: Iterable[tuple[int, str, Any]]) -> dict[int, SiteCounts]:
    found: dict[int, SiteCounts] = {}
    for number, site, value in entries:
        try:
            counts = ScoreCounts.from_json(value)
        except ValueError:
            continue
        found.setdefault(number, {})[site] = counts
    return dict(sorted(found.items()))


def forgetting(record: RunRecord) -> dict[int, dict[str, Tally]]:
    """Per round, pooled tallies of the chip head: "old" and "new" classes, before and after."""
    found: dict[int, dict[str, Tally]] = {}
    for update in record.edge_updates:
        for key in ("old_before", "old_after", "new_before", "new_after"):
            entry = mapping(update.result.get(key))
            correct, n = whole(entry.get("correct")), whole(entry.get("n"))
            if correct is not None and n is not None:
                tallies = found.setdefault(update.round, {})
                tallies[key] = tallies.get(key, Tally()) + Tally(correct, n)
    return dict(sorted(found.items()))


def new_classes(update: EdgeUpdate) -> list[str]:
    """Codes of the classes that a site met for the first time in a round."""
    value = update.result.get("new_classes")
    return [str(code) for code in value] if isinstance(value, list) else []


def mean_spikes(record: RunRecord) -> tuple[int, dict[str, float]]:
    """Version and mean spikes per layer of the newest version that has any: over its sites."""
    found: dict[int, list[dict[str, Any]]] = {}
    for version in record.versions:
        found.setdefault(version.version, []).append(mapping(version.metrics.get("mean_spikes")))
    for update in record.edge_updates:
        found.setdefault(update.version, []).append(mapping(update.result.get("mean_spikes")))
    for number in sorted(found, reverse=True):
        by_layer: dict[str, list[float]] = {}
        for entry in found[number]:
            for layer, value in entry.items():
                if isinstance(value, int | float):
                    by_layer.setdefault(layer, []).append(float(value))
        if by_layer:
            return number, {layer: sum(v) / len(v) for layer, v in by_layer.items()}
    return 0, {}


def agreement(record: RunRecord) -> dict[str, dict[str, int]]:
    """Counted agreement of program and quantized network by version, and on the test lesions."""
    entries = [(str(u.version), u.result) for u in record.edge_updates]
    entries += [("test lesions", r.result) for r in record.site_results if r.step == "final"]
    fields = ("images", "equal_predictions", "spikes", "equal_spikes")
    totals: dict[str, dict[str, int]] = {}
    for where, result in entries:
        entry = mapping(result.get("agreement"))
        numbers = {key: whole(entry.get(key)) for key in fields}
        known = {key: number for key, number in numbers.items() if number is not None}
        if len(known) == len(fields):
            total = totals.setdefault(where, dict.fromkeys(fields, 0))
            for key, number in known.items():
                total[key] += number
    return totals


def switch_round(record: RunRecord) -> int | None:
    """The first quantization-aware round, where one has begun."""
    return min((r.number for r in record.rounds if r.phase == "qat"), default=None)


def traffic(record: RunRecord) -> dict[int, dict[str, tuple[int, int]]]:
    """Bytes down to and up from each site per round, all steps together."""
    found: dict[int, dict[str, tuple[int, int]]] = {}
    for result in record.site_results:
        sites = found.setdefault(result.round, {})
        down, up = sites.get(result.site, (0, 0))
        sites[result.site] = down + result.bytes_down, up + result.bytes_up
    return dict(sorted(found.items()))
