"""The tables of docs/benchmarks.md from records: means and standard deviations over seeds."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from common.errors import SettingsError
from simulation.bench.accuracy.rows import LEAKY, ROW_NAMES
from simulation.bench.records import Record
from simulation.bench.tables import markdown_table, mean_of_seeds, spread

METRICS: dict[str, Callable[[Any], Any]] = {
    "balanced accuracy": lambda result: result["balanced_accuracy"]["value"],
    "macro-F1": lambda result: result["macro_f1"]["value"],
    "accuracy": lambda result: result["accuracy"]["value"],
    "AUC": lambda result: result["macro_auc"]["value"],
    "mel. sens. at 90 % spec.": lambda result: _value(result["melanoma_sensitivity"]),
    "mel. sens. at 95 % spec.": lambda result: _value(result["melanoma_sensitivity_95"]),
    "ECE": lambda result: result["ece"]["calibrated"],
    "accuracy, prior": lambda result: result["with_prior"]["accuracy"]["value"],
    "macro-F1, prior": lambda result: result["with_prior"]["macro_f1"]["value"],
    "ECE, softmax": lambda result: result["ece"]["softmax"],
    "validation: balanced accuracy": lambda result: _held_back(result, "balanced_accuracy"),
    "validation: macro-F1": lambda result: _held_back(result, "macro_f1"),
    "validation: AUC": lambda result: _held_back(result, "macro_auc"),
}
"""What is averaged over seeds, and where a record's ``result`` has it."""

_MAIN, _SECOND = 7, 10
"""So many of the metrics stand in the first table, and in the first two."""


def summarized(records: Sequence[Record]) -> list[dict[str, Any]]:
    """One dict for each row of records, in the order of `ROW_NAMES`, other rows after them.

    ``metrics`` have mean, sd (of a sample; None for a single seed) and n, the number of seeds that
    have a value; ``recall`` counts hits and cases of each class over all seeds; ``sites`` are as
    ``metrics``, of balanced accuracy; ``overlap`` is the largest of any seed.

    Raises SettingsError where records of one row differ in their settings, or rows other than
    `LEAKY` were judged on different test images of one seed.
    """
    by_row: dict[str, list[Record]] = {}
    for record in records:
        by_row.setdefault(str(record["row"]), []).append(record)
    _check_test_images(records)
    return [_summary(name, by_row[name]) for name in sorted(by_row, key=_place)]


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The tables: metrics; the prior put back; validation; by class; by site; rows' overlap."""
    most = max(len(row["seeds"]) for row in rows)
    names = list(METRICS)
    seeds = {row["row"]: _seeds(len(row["seeds"]), most) for row in rows}
    codes = list(dict.fromkeys(code for row in rows for code in row["recall"]))
    sites = list(dict.fromkeys(site for row in rows for site in row["sites"]))
    tables = [
        markdown_table(
            ["row", "seeds", "weights", *names[:_MAIN]],
            [
                [
                    row["row"],
                    seeds[row["row"]],
                    "" if row["parameters"] is None else f"{row['parameters']:,}",
                    *(spread(row["metrics"][name]) for name in names[:_MAIN]),
                ]
                for row in rows
            ],
        ),
        markdown_table(
            ["row", *names[_MAIN:_SECOND]],
            [
                [row["row"], *(spread(row["metrics"][n]) for n in names[_MAIN:_SECOND])]
                for row in rows
            ],
        ),
        *_validation_table(rows, names[_SECOND:]),
        "Recall by class, all seeds' test images together (hits of cases):",
        markdown_table(
            ["row", *codes],
            [[row["row"], *(_recall(row["recall"].get(code)) for code in codes)] for row in rows],
        ),
        "Balanced accuracy by site:",
        markdown_table(
            ["row", *sites],
            [[row["row"], *(spread(row["sites"].get(site)) for site in sites)] for row in rows],
        ),
    ]
    if any(row["referral"] for row in rows):
        tables += [
            "Accuracy / balanced accuracy of what is left when the least confident are referred:",
            _referral_table([row for row in rows if row["referral"]]),
        ]
    shared = [_shared(row) for row in rows if any(row["overlap"].values())]
    backends = sorted({backend for row in rows for backend in row["backends"]})
    return "\n\n".join([*tables, *shared, f"Computed by: {'; '.join(backends)}"])


def _validation_table(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> list[str]:
    """What a choice between rows goes by, where records have it."""
    known = [row for row in rows if any(row["metrics"][name]["n"] for name in names)]
    if not known:
        return []
    return [
        "On validation lesions, by which rows can be chosen:",
        markdown_table(
            ["row", *(name.removeprefix("validation: ") for name in names)],
            [[row["row"], *(spread(row["metrics"][n]) for n in names)] for row in known],
        ),
    ]


def _summary(name: str, records: Sequence[Record]) -> dict[str, Any]:
    first = records[0]
    for other in records[1:]:
        if other["settings"] != first["settings"]:
            raise SettingsError(
                f"{name}: seeds {first['seed']} and {other['seed']} were made with different "
                "settings; make one of them again, or keep them in different folders"
            )
    results = [record["result"] for record in records]
    sites = sorted({site for result in results for site in result.get("sites", {})})
    return {
        "row": name,
        "seeds": [record["seed"] for record in records],
        "parameters": first.get("parameters"),
        "backends": sorted({record["backend"] for record in records}),
        "settings": first["settings"],
        "metrics": {
            metric: mean_of_seeds(_read(read, result) for result in results)
            for metric, read in METRICS.items()
        },
        "recall": _pooled_recall(results),
        "sites": {
            site: mean_of_seeds(_value(result.get("sites", {}).get(site)) for result in results)
            for site in sites
        },
        "referral": _referral(results),
        "overlap": {
            what: max(record.get("overlap", {}).get(what, 0.0) for record in records)
            for what in ("lesions", "images")
        },
    }


def _read(read: Callable[[Any], Any], result: Any) -> float | None:
    try:
        found = read(result)
    except KeyError:  # of a record that was not made by `making`
        return None
    return None if found is None else float(found)


def _held_back(result: Any, metric: str) -> float | None:
    held = result.get("validation")
    return None if held is None else _value(held[metric])


def _value(estimate: Any) -> float | None:
    return None if estimate is None else estimate["value"]


def _pooled_recall(results: Sequence[Any]) -> dict[str, dict[str, int]]:
    """Hits and cases of each class over all results, by code."""
    pooled: dict[str, dict[str, int]] = {}
    for result in results:
        confusion = np.array(result["confusion"], np.int64)
        for index, code in enumerate(result["recall"]):
            counts = pooled.setdefault(code, {"hits": 0, "cases": 0})
            counts["hits"] += int(confusion[index, index])
            counts["cases"] += int(confusion[index].sum())
    return pooled


def _referral(results: Sequence[Any]) -> dict[str, Any]:
    """``shares`` that are referred, and at each of them accuracy and balanced accuracy.

    The latter has no value where some class has no case left: it would be of other classes.
    """
    curves = [result["referral"] for result in results if "referral" in result]
    if not curves:
        return {}
    return {
        "shares": curves[0]["shares"],
        **{
            name: [
                mean_of_seeds(
                    [] if any(e["note"] for e in at_share) else (e["value"] for e in at_share)
                )
                for at_share in zip(*(curve[name] for curve in curves), strict=True)
            ]
            for name in ("accuracy", "balanced_accuracy")
        },
    }


def _referral_table(rows: Sequence[dict[str, Any]]) -> str:
    shares = rows[0]["referral"]["shares"]
    shown = [k for k, share in enumerate(shares) if k % 2 == 0]
    return markdown_table(
        ["row", *(f"{shares[k]:.0%}" for k in shown)],
        [
            [
                row["row"],
                *(
                    f"{_mean(row['referral']['accuracy'][k])} / "
                    f"{_mean(row['referral']['balanced_accuracy'][k])}"
                    for k in shown
                ),
            ]
            for row in rows
        ],
    )


def _mean(value: dict[str, Any]) -> str:
    return spread({**value, "sd": None})


def _check_test_images(records: Sequence[Record]) -> None:
    first: dict[int, Record] = {}
    for record in records:
        if record["row"] == LEAKY or "sha256" not in record["test"]:
            continue
        other = first.setdefault(record["seed"], record)
        if other["test"]["sha256"] != record["test"]["sha256"]:
            raise SettingsError(
                f"{other['row']} and {record['row']} of seed {record['seed']} were judged on "
                "different test images, so they cannot be compared; keep records of different "
                "data in different folders"
            )


def _place(name: str) -> tuple[int, str]:
    """Of a row in tables; "alone-SITE" stands where "alone" does."""
    known = [i for i, row in enumerate(ROW_NAMES) if name == row or name.startswith(f"{row}-")]
    longest = max(known, key=lambda i: len(ROW_NAMES[i]), default=len(ROW_NAMES))
    return longest, name


def _seeds(count: int, most: int) -> str:
    return str(count) if count == most else f"{count} of {most}"


def _recall(counts: dict[str, int] | None) -> str:
    if counts is None or not counts["cases"]:
        return "–"
    share = counts["hits"] / counts["cases"]
    return f"{share:.3f} ({counts['hits']} of {counts['cases']})"


def _shared(row: dict[str, Any]) -> str:
    return (
        f"{row['row']}: {row['overlap']['lesions']:.1%} of its test images are of a lesion that it "
        f"was trained on, {row['overlap']['images']:.1%} are views of an image that it was "
        "trained on. Its numbers do not compare with the other rows'."
    )
