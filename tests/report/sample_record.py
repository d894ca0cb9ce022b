"""A synthetic run's record, as the history returns it, with what a real run reports."""

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import numpy as np

from common.messages import FinalHead
from common.metrics import ScoreCounts
from server.history.records import (
    EdgeUpdate,
    Event,
    ModelVersion,
    Round,
    Run,
    RunRecord,
    Site,
    SiteResult,
)

CODES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
SITES = ("rosendahl", "vidir_modern", "vidir_molemax", "vienna_dias")
RUN_ID = "run-1"
ROUNDS = 6
FIRST_QAT = 5
START = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
_SHARES = {
    "rosendahl": [0.12, 0.14, 0.2, 0.02, 0.15, 0.35, 0.02],
    "vidir_modern": [0.04, 0.06, 0.13, 0.02, 0.15, 0.57, 0.03],
    "vidir_molemax": [0.0, 0.0, 0.03, 0.0, 0.02, 0.95, 0.0],
    "vienna_dias": [0.0, 0.0, 0.02, 0.01, 0.15, 0.8, 0.02],
}


def counts(seed: int, site: str, n: int, skill: float, n_classes: int = 7) -> ScoreCounts:
    """Counts of ``n`` cases at ``site`` by a head whose logits stand out by ``skill``."""
    rng = np.random.default_rng([seed, SITES.index(site)])
    labels = rng.choice(7, size=n, p=_SHARES[site])
    if n_classes > 7:
        labels[: n // 5] = 7
    logits = rng.normal(size=(n, n_classes))
    logits[np.arange(n), labels] += skill
    return ScoreCounts.from_logits(logits, labels)


def complete(new_class: str | None = None) -> RunRecord:
    """A finished run of six rounds; with ``new_class`` one site meets it in round 4."""
    rounds = [
        Round(
            RUN_ID,
            number,
            "qat" if number >= FIRST_QAT else "float",
            START + timedelta(minutes=2 * number),
            START + timedelta(minutes=2 * number + 2),
            4,
            3 if number == 3 else 4,
            {"train": 61.5, "aggregate": 0.2, "convert": 14.0, "evaluate": 9.1, "deploy": 12.9},
        )
        for number in range(1, ROUNDS + 1)
    ]
    results, updates = [], []
    for site in SITES:
        results.append(_result(0, site, "handshake", {}, 900))
        for number in range(1, ROUNDS + 1):
            if number == 3 and site == "vienna_dias":
                results.append(
                    dataclasses.replace(
                        _result(number, site, "train", {}, 0),
                        accepted=False,
                        reason="no reply within 300 s",
                    )
                )
                continue
            skill = 0.6 + 0.25 * number
            n = 12 if site == "vienna_dias" else 150
            results.append(
                _result(number, site, "train", {"examples": 900, "loss": 2 / number}, 1_692_000)
            )
            evaluated = {"global": counts(number, site, n, skill).to_json()}
            results.append(_result(number, site, "evaluate", evaluated, 31_000))
            updates.append(_update(number, site, n, skill, new_class))
        finals = {
            head: counts(
                100 + i, site, 4 if site == "vienna_dias" else 160, 2.1 - 0.1 * i
            ).to_json()
            for i, head in enumerate(get_args(FinalHead))
        }
        agreed = {"images": 80, "equal_predictions": 79, "spikes": 20_480, "equal_spikes": 20_000}
        results.append(_result(ROUNDS, site, "final", {**finals, "agreement": agreed}, 124_000))
    results.sort(key=lambda r: (r.round, r.site))
    updates.sort(key=lambda u: (u.round, u.site))
    return RunRecord(
        run=Run(
            RUN_ID,
            START,
            "finished",
            42,
            "FedAvg",
            "ham10000",
            "fedqana-out/run-1",
            CODES if new_class is None else (*CODES, new_class),
            {"float_rounds": 4, "qat_rounds": 2, "local_epochs": 2, "options": {"mu": 0.1}},
            {"akida": "2.19.3", "flwr": "1.41.0", "tensorflow": "2.19.1"},
            START + timedelta(minutes=15, seconds=20),
        ),
        sites=[
            Site(RUN_ID, name, True, "", 900, 12 if name == "vienna_dias" else 150, 160)
            for name in SITES
        ]
        + [Site(RUN_ID, "late_site", False, "model hash differs", 0, 0, 0)],
        rounds=rounds,
        site_results=results,
        versions=[_version(number) for number in range(1, ROUNDS + 1)],
        edge_updates=updates,
        events=[
            Event(
                i, RUN_ID, START + timedelta(seconds=i), "round", f"event number {i}", 1, SITES[0]
            )
            for i in range(1, 81)
        ],
    )


def partial() -> RunRecord:
    """The same run just after its first round's evaluation: no edge update, nothing final."""
    whole = complete()
    return dataclasses.replace(
        whole,
        run=dataclasses.replace(whole.run, state="running", finished_at=None),
        rounds=[dataclasses.replace(whole.rounds[0], finished_at=None, seconds={})],
        site_results=[r for r in whole.site_results if r.round <= 1 and r.step != "final"],
        versions=[dataclasses.replace(whole.versions[0], fit={}, metrics={})],
        edge_updates=[],
        events=whole.events[:3],
    )


def unfinished() -> RunRecord:
    """The same run stopped before its final test."""
    whole = complete()
    return dataclasses.replace(
        whole,
        run=dataclasses.replace(whole.run, state="stopped", reason="interrupted"),
        site_results=[r for r in whole.site_results if r.step != "final"],
    )


def empty() -> RunRecord:
    """A run that was only just created."""
    whole = complete()
    return RunRecord(
        dataclasses.replace(whole.run, state="running", finished_at=None), [], [], [], [], [], []
    )


def renamed(record: RunRecord, rename: Callable[[str], str]) -> RunRecord:
    """The record with every site's name changed."""

    def change(values: list[Any], attribute: str) -> list[Any]:
        return [
            dataclasses.replace(v, **{attribute: rename(getattr(v, attribute) or "")})
            for v in values
        ]

    return dataclasses.replace(
        record,
        sites=change(record.sites, "name"),
        site_results=change(record.site_results, "site"),
        edge_updates=change(record.edge_updates, "site"),
        events=change(record.events, "site"),
    )


def _result(number: int, site: str, step: str, result: dict[str, Any], size: int) -> SiteResult:
    return SiteResult(RUN_ID, number, site, step, True, "", 12.5, size, size + 512, result)


def _update(number: int, site: str, n: int, skill: float, new_class: str | None) -> EdgeUpdate:
    met = new_class is not None and number >= 4 and site == SITES[0]
    kept = number == 2 and site == SITES[1]
    result: dict[str, Any] = {
        "backend": "software backend (akida 2.19.3)",
        "quantized": counts(number, site, n, skill - 0.05).to_json(),
        "akida": counts(number, site, n, skill - 0.1).to_json(),
        "chip_before": counts(number, site, n, skill - 0.3).to_json(),
        "chip_after": counts(number, site, n, skill - 0.2, 8 if met else 7).to_json(),
        "agreement": {
            "images": n,
            "equal_predictions": n - 3,
            "spikes": n * 256,
            "equal_spikes": n * 250,
        },
        "mean_spikes": {"ghost_1": 2101.4, "spike": 81.25},
        "latency_ms": None,
        "power_mw": None,
        "new_classes": [new_class] if met else [],
        "fine_tuned": number == ROUNDS and site == SITES[1],
        "old_before": {"correct": n // 2, "n": n},
        "old_after": {"correct": n // 2 + number, "n": n},
    }
    if met:
        result["new_before"] = {"correct": 0, "n": 20}
        result["new_after"] = {"correct": 11 + number, "n": 20}
    return EdgeUpdate(
        RUN_ID,
        number,
        site,
        number,
        not kept,
        "worse-than-current" if kept else "",
        6,
        result,
    )


def _version(number: int) -> ModelVersion:
    layers = [
        {"name": "stem", "type": "InputConv.", "output_shape": [32, 32, 16], "nps": 0},
        {"name": "ghost_1", "type": "Conv.", "output_shape": [16, 16, 40], "nps": 12},
        {"name": "spike", "type": "Conv.", "output_shape": [1, 1, 256], "nps": 6},
    ]
    fit = {
        "AKD1000": {
            "device": "AKD1000",
            "fits": True,
            "reason": "",
            "layers": 13,
            "nps": 78,
            "nps_by_type": {"CNP1": 75, "FNP2": 3},
            "passes": 1,
            "program_bytes": 421_016,
            "macs": 31_450_112,
            "external_memory": 0,
            "layers_table": layers,
        },
        "AKD1500": {"fits": False, "reason": "not enough components of type FNP2 at layer spike"},
    }
    return ModelVersion(
        RUN_ID,
        number,
        "qat" if number >= FIRST_QAT else "float",
        START + timedelta(minutes=2 * number + 1),
        f"fedqana-out/run-1/v{number}",
        "ab" * 32,
        fit,
        {"validation": {}},
    )
