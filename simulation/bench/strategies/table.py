"""The tables of strategies from records: means and standard deviations over seeds."""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

from common.errors import SettingsError
from simulation.bench.records import Record
from simulation.bench.strategies.rows import BASELINE, STRATEGIES
from simulation.bench.tables import NONE, markdown_table, mean_of_seeds, spread

SHARE = 0.9
"""Of the baseline's last validation balanced accuracy: what the last table asks a strategy for."""

PARTS = {"a quarter": 0.25, "half": 0.5, "all": 1.0}
"""Shares of the rounds, rounded up, after which validation is told."""

_OF_STRATEGIES = ("strategy", "proximal", "server_learning_rate", "site_weights")
_METRICS = ("balanced_accuracy", "macro_auc", "macro_f1", "accuracy")
_MB = 1e6
_ROUNDING = 1e-12


def summarized(records: Sequence[Record]) -> list[dict[str, Any]]:
    """One dict for each layout and strategy, layouts and then strategies in a fixed order.

    Values over seeds are as `mean_of_seeds`. ``test`` has the metrics of each head; ``mb`` the
    megabytes (10^6 bytes) of training messages: up, a site's and in all, and down; ``after``, by
    `PARTS`, validation balanced accuracy with the megabytes up and the epochs of a site until then;
    ``curve`` the same after every round; ``reaching`` the first round with `SHARE` of the
    baseline's last validation balanced accuracy of the same seed: of how many seeds that have a
    baseline (``of``) it was ``reached``, and means over those; None without a baseline.

    Raises SettingsError where seeds of one row differ in their settings, or rows of one layout
    in anything but the strategy, or were judged on different test images of one seed.
    """
    by_row: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        by_row.setdefault((record["sites"], record["strategy"]), []).append(record)
    ordered = sorted(by_row, key=_place)
    for key in ordered:
        by_row[key].sort(key=lambda record: int(record["seed"]))
        for record in by_row[key]:
            _check_settings(by_row[key][0], record, ())
            _check_settings(by_row[next(k for k in ordered if k[0] == key[0])][0], record)
    _check_test_images(records)
    targets = {
        (record["sites"], record["seed"]): SHARE * last
        for record in records
        if record["strategy"] == BASELINE and (last := _accuracies(record)[-1]) is not None
    }
    return [_summary(key, by_row[key], targets) for key in ordered]


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Three tables: the program on test lesions, validation on the way, the way to `SHARE`."""
    most = max(len(row["seeds"]) for row in rows)

    def table(columns: dict[str, Callable[[dict[str, Any]], str]]) -> str:
        named = {"sites": lambda row: row["sites"], "strategy": lambda row: row["strategy"]}
        columns = {**named, **columns}
        return markdown_table(
            list(columns), [[show(row) for show in columns.values()] for row in rows]
        )

    program = table(
        {
            "seeds": lambda row: _of(len(row["seeds"]), most),
            "balanced accuracy": lambda row: spread(_akida(row, "balanced_accuracy")),
            "AUC": lambda row: spread(_akida(row, "macro_auc")),
            "MB up, a site": lambda row: spread(row["mb"]["up_per_site"], 1),
            "MB up, all": lambda row: spread(row["mb"]["up"], 1),
            "MB down, all": lambda row: spread(row["mb"]["down"], 1),
            "local epochs": lambda row: spread(row["local_epochs"], 0),
            "steps": lambda row: spread(row["steps"], 0),
        }
    )
    on_the_way = table({f"after {part} of the rounds": _after(part) for part in PARTS})
    reaching = table(
        {
            "rounds": lambda row: _reaching(row["reaching"], "round", 1),
            "MB up, all": lambda row: _reaching(row["reaching"], "mb_up", 1),
            "local epochs": lambda row: _reaching(row["reaching"], "local_epochs", 1),
        }
    )
    backends = sorted({backend for row in rows for backend in row["backends"]})
    refused = sum(row["refused_answers"] for row in rows)
    parts = [
        "The Akida program on all sites' test lesions:",
        program,
        "Validation balanced accuracy (MB up of all sites and local epochs of each until then):",
        on_the_way,
        f"Until {SHARE:.0%} of {BASELINE}'s last validation balanced accuracy:",
        reaching,
    ]
    if refused:
        parts.append(f"Answers of sites that did not count: {refused}")
    return "\n\n".join([*parts, f"Computed by: {'; '.join(backends)}"])


def _summary(
    key: tuple[str, str], records: Sequence[Record], targets: dict[tuple[str, int], float]
) -> dict[str, Any]:
    totals = [record["totals"] for record in records]
    curves = [_points(record) for record in records]
    heads = dict.fromkeys(head for record in records for head in record["test"])
    return {
        "sites": key[0],
        "strategy": key[1],
        "seeds": [record["seed"] for record in records],
        "n_sites": sorted({len(record["cases"]) for record in records}),
        "settings": records[0]["settings"],
        "backends": sorted({record["backend"] for record in records}),
        "refused_answers": sum(record.get("refused_answers", 0) for record in records),
        "test": {head: _of_head(records, head) for head in heads},
        "mb": {
            "up_per_site": mean_of_seeds(
                record["totals"]["bytes_up"] / _MB / len(record["cases"]) for record in records
            ),
            "up": mean_of_seeds(total["bytes_up"] / _MB for total in totals),
            "down": mean_of_seeds(total["bytes_down"] / _MB for total in totals),
        },
        **{
            name: mean_of_seeds(total[name] for total in totals)
            for name in ("local_epochs", "site_epochs", "steps", "training_seconds", "seconds")
        },
        "after": {
            part: _means([points[math.ceil(share * len(points)) - 1] for points in curves])
            for part, share in PARTS.items()
        },
        "curve": [_means(points) for points in zip(*curves, strict=True)],
        "reaching": _reached(records, curves, targets),
    }


def _of_head(records: Sequence[Record], head: str) -> dict[str, Any]:
    return {
        metric: mean_of_seeds(_value(record["test"].get(head), metric) for record in records)
        for metric in _METRICS
    }


def _points(record: Record) -> list[dict[str, Any]]:
    """Round, phase, validation balanced accuracy and what was spent until then, for each round."""
    up = accumulate(r["bytes_up"] for r in record["curve"])
    epochs = accumulate(r["local_epochs"] for r in record["curve"])
    return [
        {
            "round": each["round"],
            "phase": each["phase"],
            "balanced_accuracy": accuracy,
            "mb_up": bytes_up / _MB,
            "local_epochs": local_epochs,
        }
        for each, accuracy, bytes_up, local_epochs in zip(
            record["curve"], _accuracies(record), up, epochs, strict=True
        )
    ]


def _means(points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Over seeds, of one round."""
    found: dict[str, Any] = {name: points[0][name] for name in ("round", "phase")}
    for name in ("balanced_accuracy", "mb_up", "local_epochs"):
        found[name] = mean_of_seeds(point[name] for point in points)
    return found


def _reached(
    records: Sequence[Record],
    curves: Sequence[list[dict[str, Any]]],
    targets: dict[tuple[str, int], float],
) -> dict[str, Any] | None:
    first, of = [], 0
    for record, points in zip(records, curves, strict=True):
        target = targets.get((record["sites"], record["seed"]))
        if target is None:
            continue
        of += 1
        reaching = [p for p in points if (p["balanced_accuracy"] or 0.0) >= target - _ROUNDING]
        first += reaching[:1]
    if not of:
        return None
    means = {
        name: mean_of_seeds(point[name] for point in first)
        for name in ("round", "mb_up", "local_epochs")
    }
    return {"reached": len(first), "of": of, **means}


def _accuracies(record: Record) -> list[float | None]:
    return [each["validation"]["balanced_accuracy"] for each in record["curve"]]


def _value(summary: Any, metric: str) -> float | None:
    value = None if summary is None else summary[metric]["value"]
    return None if value is None else float(value)


def _check_settings(first: Record, other: Record, but: tuple[str, ...] = _OF_STRATEGIES) -> None:
    one, two = first["settings"], other["settings"]
    for name in sorted({*one, *two} - set(but)):
        if one.get(name) != two.get(name):
            raise SettingsError(
                f"{other['sites']}: {first['strategy']} seed {first['seed']} and "
                f"{other['strategy']} seed {other['seed']} were made with different {name} "
                f"({one.get(name)!r} and {two.get(name)!r}); keep them in different folders"
            )


def _check_test_images(records: Sequence[Record]) -> None:
    first: dict[tuple[str, int], Record] = {}
    for record in records:
        other = first.setdefault((record["sites"], record["seed"]), record)
        if other["test_sha256"] != record["test_sha256"]:
            raise SettingsError(
                f"{record['sites']}: {other['strategy']} and {record['strategy']} of seed "
                f"{record['seed']} were judged on different test images, so they cannot be "
                "compared; keep records of different data in different folders"
            )


def _place(key: tuple[str, str]) -> tuple[Any, ...]:
    """Layouts by kind, number of sites and skew; strategies as in `STRATEGIES`."""
    kind, *numbers = key[0].split(":")
    return kind != "source", kind, *(float(n) for n in numbers), STRATEGIES.index(key[1])


def _akida(row: dict[str, Any], metric: str) -> dict[str, Any] | None:
    head = row["test"].get("akida")
    return None if head is None else head[metric]


def _of(count: int, most: int) -> str:
    return str(count) if count == most else f"{count} of {most}"


def _after(part: str) -> Callable[[dict[str, Any]], str]:
    def shown(row: dict[str, Any]) -> str:
        point = row["after"][part]
        spent = f"{point['mb_up']['mean']:.1f} MB, {point['local_epochs']['mean']:.0f} ep."
        return f"{spread(point['balanced_accuracy'])} ({spent})"

    return shown


def _reaching(reaching: dict[str, Any] | None, name: str, digits: int) -> str:
    if reaching is None:
        return NONE
    if not reaching["reached"]:
        return "not reached"
    missing = reaching["reached"] < reaching["of"]
    some = f" ({reaching['reached']} of {reaching['of']} seeds)" if missing else ""
    return spread(reaching[name], digits) + some
