"""What each `fedqana bench` measures, as rows for tables."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from common.akida_runtime import Program, available_device
from common.bundle import CARD, PROGRAM, Bundle, load_bundle
from common.classes import ClassMap
from common.data.cases import Cases
from common.errors import ModelNotFound
from edge_client.exemplars import PER_CLASS
from edge_client.site import relabelled
from simulation.bench.networks import (
    PARTS,
    BenchSettings,
    Seen,
    bench_cases,
    known_codes,
    seen_by,
)
from simulation.bench.on_chip import head_rows, mean_recall, poison, recalls, teach, wear

Row = dict[str, Any]


class Network:
    """A trained network of the bench with what it makes of its own split's lesions.

    Labels index ``codes``: the classes it was trained on, then the one held out.
    """

    def __init__(self, data: str, out: Path, seed: int, hold_out: str, classes: ClassMap) -> None:
        name = BenchSettings(seed, hold_out).name
        if not (out / name / CARD).exists():
            option = f" --hold-out {hold_out}" if hold_out else ""
            raise ModelNotFound(
                f"there is no network {name} in {out}; make it with 'fedqana bench train --data "
                f"{data} --out {out} --seed {seed}{option}'"
            )
        self.seed = seed
        self.bundle: Bundle = load_bundle(out / name)
        known = known_codes(classes, hold_out)
        self.codes = (*known, hold_out) if hold_out else known
        size = self.bundle.card.config.input_size
        cases = bench_cases(data, seed, classes, size, out / "cache")
        self.cases: dict[str, Cases] = {
            part: relabelled(cases[part], classes, self.codes) for part in PARTS
        }
        self.parts: dict[str, Seen] = {
            part: seen_by(self.bundle, found, out / name, part)
            for part, found in self.cases.items()
        }

    def program(self) -> Program:
        """The Akida program."""
        return Program.from_bytes(self.bundle.files[PROGRAM])


def conversion(data: str, out: Path, seeds: Sequence[int], classes: ClassMap) -> list[Row]:
    """Balanced accuracy from float to Akida, and equal spikes and predictions, per network."""
    rows: list[Row] = []
    for seed in seeds:
        found = Network(data, out, seed, "", classes)
        equal_spikes = spikes = equal = images = 0
        for seen in found.parts.values():
            equal_spikes += int((seen.spikes == seen.quantized_spikes).sum())
            spikes += seen.spikes.size
            equal += int((seen.scores.argmax(axis=1) == seen.quantized_scores.argmax(axis=1)).sum())
            images += len(seen.labels)
        for part in ("validation", "test"):
            seen = found.parts[part]
            heads = {
                "float": seen.float_scores,
                "quantized": seen.quantized_scores,
                "akida": seen.scores,
            }
            rows.append(
                {
                    "seed": seed,
                    "part": part,
                    "n": len(seen.labels),
                    **{k: mean_recall(v.argmax(axis=1), seen.labels) for k, v in heads.items()},
                    "recalls": {
                        found.codes[k]: value
                        for k, value in recalls(seen.scores.argmax(axis=1), seen.labels).items()
                    },
                    "images": images,
                    "equal_predictions": equal,
                    "spikes": spikes,
                    "equal_spikes": equal_spikes,
                }
            )
    return rows


def events(data: str, out: Path, seeds: Sequence[int], classes: ClassMap, n: int) -> list[Row]:
    """Mean non-zero outputs of each layer for ``n`` validation images, per network."""
    rows: list[Row] = []
    for seed in seeds:
        found = Network(data, out, seed, "", classes)
        images = found.cases["validation"].images[:n]
        rows.append({"seed": seed, "n": len(images), **found.program().mean_spikes(images)})
    return rows


def heads(data: str, out: Path, seeds: Sequence[int], classes: ClassMap, draws: int) -> list[Row]:
    """Every way to decide: mean and standard deviation over networks and draws of exemplars."""
    collected: dict[str, dict[str, list[float]]] = {}
    for seed in seeds:
        found = Network(data, out, seed, "", classes)
        for row in head_rows(found.program(), found.parts, len(found.codes), seed, draws):
            kept = collected.setdefault(row.name, {"validation": [], "test": []})
            kept["validation"] += row.validation
            kept["test"] += row.test
    return [
        {"head": name, **{part: spread(values) for part, values in parts.items()}}
        for name, parts in collected.items()
    ]


def new_class(
    data: str,
    out: Path,
    seeds: Sequence[int],
    classes: ClassMap,
    held_out: Sequence[str],
    counts: Sequence[int],
    draws: int,
) -> list[Row]:
    """A class that the network never saw, taught at one site with few cases and then shared.

    Judged on validation and test lesions together: nothing is chosen here, and the rare
    classes have few lesions.
    """
    rows: list[Row] = []
    for code in held_out:
        found = [Network(data, out, seed, code, classes) for seed in seeds]
        for count in counts:
            taught: dict[str, list[float]] = {}
            for net in found:
                new = len(net.codes) - 1
                judged = joined(net.parts["validation"], net.parts["test"])
                for draw in range(draws):
                    result = teach(
                        net.parts["train"], judged, new, count, PER_CLASS, net.seed, draw
                    )
                    for name, value in asdict(result).items():
                        taught.setdefault(name, []).append(value)
            rows.append(
                {"class": code, "cases": count, **{k: spread(v) for k, v in taught.items()}}
            )
    return rows


def poisoning(
    data: str,
    out: Path,
    seeds: Sequence[int],
    classes: ClassMap,
    held_out: Sequence[str],
    draws: int,
) -> Row:
    """What hostile neurons do to a site's balanced accuracy, with and without its limit."""
    found: dict[str, list[float]] = {}
    for code in held_out:
        for seed in seeds:
            net = Network(data, out, seed, code, classes)
            judged = joined(net.parts["validation"], net.parts["test"])
            for draw in range(draws):
                result = poison(
                    net.parts["train"], judged, len(net.codes) - 1, PER_CLASS, seed, draw
                )
                for name, value in asdict(result).items():
                    found.setdefault(name, []).append(value)
    return {name: spread(values) for name, values in found.items()}


def wearing(data: str, out: Path, seeds: Sequence[int], classes: ClassMap) -> list[Row]:
    """Balanced accuracy on test lesions after cases that were learned one by one."""
    curves: dict[tuple[str, int], list[float]] = {}
    for seed in seeds:
        found = Network(data, out, seed, "", classes)
        curve = wear(
            found.program(),
            found.parts["train"],
            found.parts["test"],
            len(found.codes),
            PER_CLASS,
            seed,
        )
        for rule, points in curve.items():
            for count, value in points:
                curves.setdefault((rule, count), []).append(value)
    return [
        {"rule": rule, "cases": count, "test": spread(values)}
        for (rule, count), values in curves.items()
    ]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean, standard deviation (over the sample) and number of values."""
    return {
        "mean": float(np.mean(values)),
        "sd": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
        "n": len(values),
    }


def joined(first: Seen, second: Seen) -> Seen:
    """Two parts as one."""
    names = [field.name for field in fields(Seen)]
    return Seen(*(np.concatenate([getattr(first, n), getattr(second, n)]) for n in names))


def backend() -> str:
    """Where the programs ran."""
    return available_device().name
