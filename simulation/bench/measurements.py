"""What each `fedqana bench` measures, as rows for tables."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
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
from server.model_evaluation import EVENT_IMAGES
from simulation.bench.networks import (
    DEFAULT_SHAPE,
    PARTS,
    BenchSettings,
    Seen,
    bench_cases,
    check_lesions,
    known_codes,
    seen_by,
)
from simulation.bench.on_chip import (
    best_recall,
    head_rows,
    mean_recall,
    poison,
    recalls,
    teach,
    wear,
)

Row = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """What the commands measure on: data, folder of the networks, their seeds and kind."""

    data: str
    out: Path
    seeds: tuple[int, ...]
    classes: ClassMap
    shape: str = DEFAULT_SHAPE
    distillation: float = 1.0
    spike_band: float = 0.0
    decorrelation: float = 0.0

    def networks(self, hold_out: str = "", event_penalty: float = 0.0) -> "Iterator[Network]":
        """The trained networks, one for each seed; ModelNotFound for one that was not trained."""
        for seed in self.seeds:
            settings = BenchSettings(
                seed,
                hold_out,
                self.shape,
                event_penalty=event_penalty,
                distillation=self.distillation,
                spike_band=self.spike_band,
                decorrelation=self.decorrelation,
            )
            yield Network(self, settings)


class Network:
    """A trained network of the bench with what it makes of its own split's lesions.

    Labels index ``codes``: the classes it was trained on, then the one held out.
    """

    def __init__(self, bench: Bench, settings: BenchSettings) -> None:
        self.folder = bench.out / settings.name
        if not (self.folder / CARD).exists():
            raise ModelNotFound(
                f"there is no network {settings.name} in {bench.out}; make it with 'fedqana bench "
                f"train --data {bench.data} --out {bench.out}{settings.options}'"
            )
        self.seed = settings.seed
        self.bundle: Bundle = load_bundle(self.folder)
        known = known_codes(bench.classes, settings.hold_out)
        self.codes = (*known, settings.hold_out) if settings.hold_out else known
        size = self.bundle.card.config.input_size
        cases = bench_cases(bench.data, self.seed, bench.classes, size, bench.out / "cache")
        check_lesions(settings, cases["train"], bench.out)
        self.cases: dict[str, Cases] = {
            part: relabelled(cases[part], bench.classes, self.codes) for part in PARTS
        }
        self._seen: dict[str, Seen] = {}

    def seen(self, part: str) -> Seen:
        """What the network makes of a part's lesions; computed once and kept."""
        if part not in self._seen:
            self._seen[part] = seen_by(self.bundle, self.cases[part], self.folder, part)
        return self._seen[part]

    def program(self) -> Program:
        """The Akida program."""
        return Program.from_bytes(self.bundle.files[PROGRAM])

    def balanced_accuracies(self, part: str) -> dict[str, float]:
        """Of the three forms of the network, by name."""
        seen = self.seen(part)
        scores = {
            "float": seen.float_scores,
            "quantized": seen.quantized_scores,
            "akida": seen.scores,
        }
        return {k: mean_recall(v.argmax(axis=1), seen.labels) for k, v in scores.items()}

    def events(self) -> dict[str, float]:
        """Mean events of each layer before the head, over validation lesions."""
        return self.program().mean_spikes(self.cases["validation"].images[:EVENT_IMAGES])


def conversion(bench: Bench) -> list[Row]:
    """Balanced accuracy from float to Akida, and equal spikes and predictions, per network."""
    rows: list[Row] = []
    for found in bench.networks():
        parts = [found.seen(part) for part in PARTS]
        compared = {
            "images": sum(len(seen.labels) for seen in parts),
            "equal_predictions": sum(
                int((s.scores.argmax(axis=1) == s.quantized_scores.argmax(axis=1)).sum())
                for s in parts
            ),
            "spikes": sum(seen.spikes.size for seen in parts),
            "equal_spikes": sum(int((s.spikes == s.quantized_spikes).sum()) for s in parts),
        }
        for part in ("validation", "test"):
            seen = found.seen(part)
            by_class = recalls(seen.scores.argmax(axis=1), seen.labels)
            rows.append(
                {
                    "seed": found.seed,
                    "part": part,
                    "n": len(seen.labels),
                    **found.balanced_accuracies(part),
                    "recalls": {found.codes[k]: value for k, value in by_class.items()},
                    **compared,
                }
            )
    return rows


def events(bench: Bench) -> list[Row]:
    """Mean non-zero outputs of each layer for an image, per network."""
    return [{"seed": found.seed, **found.events()} for found in bench.networks()]


def shapes(bench: Bench, names: Sequence[str]) -> list[Row]:
    """What each shape costs on the chips, and its balanced accuracy over the seeds."""
    rows: list[Row] = []
    for name in names:
        networks = list(replace(bench, shape=name).networks())
        fits = networks[0].bundle.card.fit
        rows.append(
            {
                "shape": name,
                "nps": {device: report["nps"] for device, report in fits.items()},
                "passes": {device: report["passes"] for device, report in fits.items()},
                "program_bytes": {d: report["program_bytes"] for d, report in fits.items()},
                "macs": next(iter(fits.values()))["macs"],
                "events": spread([sum(found.events().values()) for found in networks]),
                **_accuracies(networks),
            }
        )
    return rows


def sparsity(bench: Bench, penalties: Sequence[float]) -> list[Row]:
    """Events and balanced accuracy as the penalty on activations grows."""
    rows: list[Row] = []
    for penalty in penalties:
        networks = list(bench.networks(event_penalty=penalty))
        counted = [found.events() for found in networks]
        rows.append(
            {
                "penalty": penalty,
                "events": spread([sum(layers.values()) for layers in counted]),
                "layers": {n: float(np.mean([c[n] for c in counted])) for n in counted[0]},
                **_accuracies(networks),
            }
        )
    return rows


def _accuracies(networks: Sequence[Network]) -> Row:
    """Balanced accuracy of the float network and the program, over networks, by part."""
    row: Row = {}
    for part in ("validation", "test"):
        found = [network.balanced_accuracies(part) for network in networks]
        row[part] = {form: spread([f[form] for f in found]) for form in ("float", "akida")}
    return row


def heads(bench: Bench, draws: int) -> list[Row]:
    """Every way to decide: mean and standard deviation over networks and draws of exemplars."""
    collected: dict[str, dict[str, list[float]]] = {}
    for found in bench.networks():
        parts = {part: found.seen(part) for part in PARTS}
        for row in head_rows(found.program(), parts, len(found.codes), found.seed, draws):
            kept = collected.setdefault(row.name, {"validation": [], "test": []})
            kept["validation"] += row.validation
            kept["test"] += row.test
    return [
        {"head": name, **{part: spread(values) for part, values in parts.items()}}
        for name, parts in collected.items()
    ]


def new_class(
    bench: Bench, held_out: Sequence[str], counts: Sequence[int], draws: int
) -> list[Row]:
    """A class that the network never saw, taught at one site with few cases and then shared.

    Judged on test lesions. Rows of the class "mean" are over the classes' means.
    """
    rows: list[Row] = []
    every: dict[int, dict[str, list[float]]] = {count: {} for count in counts}
    for code in held_out:
        networks = list(bench.networks(code))
        for count in counts:
            taught: dict[str, list[float]] = {}
            for found in networks:
                new, train, test = len(found.codes) - 1, found.seen("train"), found.seen("test")
                for draw in range(draws):
                    result = teach(train, test, new, count, PER_CLASS, found.seed, draw)
                    for name, value in asdict(result).items():
                        taught.setdefault(name, []).append(value)
            rows.append(
                {"class": code, "cases": count, **{k: spread(v) for k, v in taught.items()}}
            )
            for name, values in taught.items():
                every[count].setdefault(name, []).append(float(np.mean(values)))
    if len(held_out) > 1:
        rows += [
            {"class": "mean", "cases": count, **{k: spread(v) for k, v in found_in.items()}}
            for count, found_in in every.items()
        ]
    return rows


def trained_on(bench: Bench, codes: Sequence[str]) -> list[Row]:
    """`best_recall` of each class by the program's own head where it was trained on the class.

    What could be hoped for if the network knew the class; judged on test lesions as
    `new_class` is.
    """
    networks = list(bench.networks())
    rows: list[Row] = []
    for code in codes:
        found = []
        for network in networks:
            seen = network.seen("test")
            found.append(best_recall(seen.scores, seen.labels, network.codes.index(code)))
        cases = [int((n.cases["train"].labels == n.codes.index(code)).sum()) for n in networks]
        rows.append({"class": code, "cases": spread(cases), "recall": spread(found)})
    if len(codes) > 1:
        means = [row["recall"]["mean"] for row in rows]
        cases = [row["cases"]["mean"] for row in rows]
        rows.append({"class": "mean", "cases": spread(cases), "recall": spread(means)})
    return rows


def poisoning(bench: Bench, held_out: Sequence[str], draws: int) -> Row:
    """What hostile neurons do to a site's balanced accuracy, with and without its limit."""
    changes: dict[str, list[float]] = {}
    for code in held_out:
        for found in bench.networks(code):
            new, train, judged = len(found.codes) - 1, found.seen("train"), found.seen("test")
            for draw in range(draws):
                result = poison(train, judged, new, PER_CLASS, found.seed, draw)
                for name, value in asdict(result).items():
                    changes.setdefault(name, []).append(value)
    return {name: spread(values) for name, values in changes.items()}


def wearing(bench: Bench) -> list[Row]:
    """Balanced accuracy on test lesions after cases that were learned one by one."""
    curves: dict[tuple[str, int], list[float]] = {}
    for found in bench.networks():
        train, test = found.seen("train"), found.seen("test")
        curve = wear(found.program(), train, test, len(found.codes), PER_CLASS, found.seed)
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


def backend() -> str:
    """Where the programs ran."""
    return available_device().name
