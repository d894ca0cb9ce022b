"""The benchmark of strategies on the tiny network and made-up lesions: runs, records, tables."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from click.testing import CliRunner

from common.compression import Compression
from common.errors import SettingsError
from server.history.engine import default_url
from server.history.store import open_history
from server.plan import RunPlan
from server.progress import Progress, listening
from simulation.bench.strategies.figure import accuracy_over_bytes
from simulation.bench.strategies.making import RUNS, Options, make_records, record_file
from simulation.bench.strategies.rows import COMPRESSIONS, STRATEGIES, Row
from simulation.bench.strategies.table import markdown, summarized
from simulation.cli import cli
from tests.support.tiny_run import TINY

pytestmark = pytest.mark.timeout(900)  # real runs, on a machine that may be busy

ROWS = [Row("iid:2", "fedavg", 0), Row("iid:2", "fedmedian", 0)]
PLAN = {"float_rounds": 1, "qat_rounds": 1, "local_epochs": 2, "batch": 16}


def options(out: Path, **changed: Any) -> Options:
    plan = {**PLAN, **changed.pop("plan", {})}
    return Options("synthetic:80", out, plan, config=TINY, **changed)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    out = tmp_path_factory.mktemp("strategies")
    return out, make_records(ROWS, options(out, keep_runs=True))


def test_the_names_are_those_of_the_plan() -> None:
    assert set(STRATEGIES) == set(get_args(RunPlan.model_fields["strategy"].annotation))
    assert get_args(Compression) == COMPRESSIONS


def test_a_record_is_what_the_run_did(made: tuple[Path, list[dict[str, Any]]]) -> None:
    out, records = made
    for row, record in zip(ROWS, records, strict=True):
        work = out / RUNS / row.stem
        with open_history(default_url(work)) as history:
            run = history.load_record(row.stem)
        assert run.run.strategy == row.strategy and run.run.seed == 0
        assert [v.version for v in run.versions] == [1, 2]  # the end of each phase
        training = [r for r in run.site_results if r.step == "train"]
        assert record["totals"]["bytes_up"] == sum(r.bytes_up for r in training) > 0
        assert record["totals"]["bytes_down"] == sum(r.bytes_down for r in training) > 0
        cases = record["cases"]
        a_round = sum(2 * math.ceil(n["train"] / 16) for n in cases.values())
        assert [r["steps"] for r in record["curve"]] == [a_round, a_round]
        assert record["totals"]["local_epochs"] == 4  # two rounds of two
        assert record["totals"]["site_epochs"] == 8
        for each, version in zip(record["curve"], run.versions, strict=True):
            told = version.metrics["validation"]
            assert each["validation"] == {
                "images": told["n"],
                "balanced_accuracy": told["balanced_accuracy"]["value"],
                "macro_auc": told["macro_auc"]["value"],
            }
        assert [r["phase"] for r in record["curve"]] == ["float", "qat"]
        tested = sum(n["test"] for n in cases.values())
        assert {head: s["n"] for head, s in record["test"].items()} == dict.fromkeys(
            ("float", "quantized", "akida", "chip", "combined"), tested
        )
        assert "akida" in record["backend"]
        assert f"--strategy {row.strategy} --seed 0 --rounds 1" in record["command"]
    first, second = records
    assert first["test_sha256"] == second["test_sha256"]


def test_found_again_and_refused_with_other_settings(
    made: tuple[Path, list[dict[str, Any]]],
) -> None:
    out, records = made
    said: list[str] = []
    written = [record_file(out, row).stat().st_mtime_ns for row in ROWS]
    # FedAdam's rate is no setting of these two.
    again = options(out, plan={"server_learning_rate": 0.5}, tell=said.append)
    assert make_records(ROWS, again) == records
    assert [": found " in line for line in said] == [True, True]
    assert [record_file(out, row).stat().st_mtime_ns for row in ROWS] == written
    with pytest.raises(SettingsError, match="made with float_rounds 1, not 2"):
        make_records(ROWS, options(out, plan={"float_rounds": 2}))
    with pytest.raises(SettingsError, match="made with compression 'none', not 'top-k'"):
        make_records(ROWS, options(out, plan={"compression": "top-k"}))
    # All rows are checked before the first run starts.
    bad = [Row("iid:2", "krum", 0), Row("iid:zero", "fedavg", 0)]
    with pytest.raises(SettingsError, match="iid:zero"):
        make_records(bad, options(out))
    assert not (out / RUNS / bad[0].stem).exists()


def test_a_stopped_run_goes_on(tmp_path: Path, made: tuple[Path, list[dict[str, Any]]]) -> None:
    whole = made[1][0]

    @contextmanager
    def stopped() -> Iterator[None]:
        def show(progress: Progress) -> None:
            if progress.round == 2 and progress.step == "train":
                raise KeyboardInterrupt

        with listening(show):
            yield

    with pytest.raises(KeyboardInterrupt):
        make_records(ROWS[:1], options(tmp_path, watched=stopped))
    assert not record_file(tmp_path, ROWS[0]).exists()
    with pytest.raises(SettingsError, match="made with batch 16, not 8"):
        make_records(ROWS[:1], options(tmp_path, plan={"batch": 8}))
    seen: list[tuple[int, str]] = []

    @contextmanager
    def watched() -> Iterator[None]:
        with listening(lambda progress: seen.append((progress.round, progress.step))):
            yield

    (record,) = make_records(ROWS[:1], options(tmp_path, watched=watched))
    assert (1, "train") not in seen and (2, "train") in seen
    for key in ("settings", "cases", "test_sha256", "test"):
        assert record[key] == whole[key]
    assert [r["validation"] for r in record["curve"]] == [r["validation"] for r in whole["curve"]]
    assert not (tmp_path / RUNS / ROWS[0].stem).exists()  # no --keep-runs


def record_by_hand(strategy: str, seed: int, curve: list[float], **other: Any) -> dict[str, Any]:
    """Of two sites that send 1 MB each in every round and train 3 epochs in it."""
    rounds = [
        {
            "round": number,
            "phase": "float" if number < len(curve) else "qat",
            "bytes_up": 2_000_000,
            "bytes_down": 4_000_000,
            "trained": 2,
            "local_epochs": 3,
            "steps": 10,
            "validation": {"images": 50, "balanced_accuracy": value, "macro_auc": 0.5},
            "seconds": 1.0,
        }
        for number, value in enumerate(curve, 1)
    ]
    n = len(curve)
    metrics = {
        "balanced_accuracy": {"value": curve[-1] - 0.02},
        "macro_auc": {"value": curve[-1] + 0.2},
        "macro_f1": {"value": None},
        "accuracy": {"value": 0.5},
    }
    return {
        "sites": "source",
        "strategy": strategy,
        "seed": seed,
        "settings": {"float_rounds": n - 1, "qat_rounds": 1},
        "command": "",
        "versions": {},
        "backend": "by hand",
        "cases": {"a": {}, "b": {}},
        "test_sha256": f"of {seed}",
        "curve": rounds,
        "totals": {
            "bytes_up": 2_000_000 * n,
            "bytes_down": 4_000_000 * n,
            "local_epochs": 3 * n,
            "site_epochs": 6 * n,
            "steps": 10 * n,
            "training_seconds": 1.0 * n,
            "seconds": 2.0 * n,
        },
        "test": {"akida": metrics},
        **other,
    }


BY_HAND = [
    record_by_hand("fedadam", 0, [0.10, 0.30, 0.37, 0.40, 0.42, 0.44]),
    record_by_hand("fedadam", 1, [0.10, 0.20, 0.25, 0.30, 0.30, 0.34]),
    # 90 % of their last values: 0.36 and 0.45.
    record_by_hand("fedavg", 0, [0.20, 0.30, 0.35, 0.36, 0.38, 0.40]),
    record_by_hand("fedavg", 1, [0.20, 0.30, 0.35, 0.46, 0.40, 0.50]),
    record_by_hand("fedavg", 0, [0.15, 0.20], sites="dirichlet:10:0.3"),
    record_by_hand("krum", 0, [0.10, 0.12], sites="dirichlet:10:0.3"),
    record_by_hand("krum", 0, [0.10, 0.12], sites="dirichlet:10:0.1"),
]


def test_the_tables_by_hand() -> None:
    lines = markdown(summarized(BY_HAND)).splitlines()

    def rows(title: str) -> list[str]:
        first = next(i for i, line in enumerate(lines) if line.startswith(title)) + 4
        return lines[first : first + 5]

    assert rows("The Akida program") == [
        "| source | fedavg | 2 | 0.430 ± 0.071 | 0.650 ± 0.071 | 6.0 ± 0.0 | 12.0 ± 0.0 "
        "| 24.0 ± 0.0 | 18 ± 0 | 60 ± 0 |",
        "| source | fedadam | 2 | 0.370 ± 0.071 | 0.590 ± 0.071 | 6.0 ± 0.0 | 12.0 ± 0.0 "
        "| 24.0 ± 0.0 | 18 ± 0 | 60 ± 0 |",
        "| dirichlet:10:0.1 | krum | 1 of 2 | 0.100 | 0.320 | 2.0 | 4.0 | 8.0 | 6 | 20 |",
        "| dirichlet:10:0.3 | fedavg | 1 of 2 | 0.180 | 0.400 | 2.0 | 4.0 | 8.0 | 6 | 20 |",
        "| dirichlet:10:0.3 | krum | 1 of 2 | 0.100 | 0.320 | 2.0 | 4.0 | 8.0 | 6 | 20 |",
    ]
    # A quarter of six rounds is the second, half the third; of two rounds both are the first.
    assert rows("Validation") == [
        "| source | fedavg | 0.300 ± 0.000 (4.0 MB, 6 ep.) | 0.350 ± 0.000 (6.0 MB, 9 ep.) "
        "| 0.450 ± 0.071 (12.0 MB, 18 ep.) |",
        "| source | fedadam | 0.250 ± 0.071 (4.0 MB, 6 ep.) | 0.310 ± 0.085 (6.0 MB, 9 ep.) "
        "| 0.390 ± 0.071 (12.0 MB, 18 ep.) |",
        "| dirichlet:10:0.1 | krum | 0.100 (2.0 MB, 3 ep.) | 0.100 (2.0 MB, 3 ep.) "
        "| 0.120 (4.0 MB, 6 ep.) |",
        "| dirichlet:10:0.3 | fedavg | 0.150 (2.0 MB, 3 ep.) | 0.150 (2.0 MB, 3 ep.) "
        "| 0.200 (4.0 MB, 6 ep.) |",
        "| dirichlet:10:0.3 | krum | 0.100 (2.0 MB, 3 ep.) | 0.100 (2.0 MB, 3 ep.) "
        "| 0.120 (4.0 MB, 6 ep.) |",
    ]
    # FedAvg: round 4 in both seeds; FedAdam: round 3 of seed 0, never in seed 1.
    assert rows("Until 90%") == [
        "| source | fedavg | 4.0 ± 0.0 | 8.0 ± 0.0 | 12.0 ± 0.0 |",
        "| source | fedadam | 3.0 (1 of 2 seeds) | 6.0 (1 of 2 seeds) | 9.0 (1 of 2 seeds) |",
        "| dirichlet:10:0.1 | krum | – | – | – |",
        "| dirichlet:10:0.3 | fedavg | 2.0 | 4.0 | 6.0 |",
        "| dirichlet:10:0.3 | krum | not reached | not reached | not reached |",
    ]
    assert lines[-1] == "Computed by: by hand"


def test_what_cannot_be_compared_is_refused() -> None:
    longer = record_by_hand("fedavg", 2, [0.1] * 7)
    with pytest.raises(SettingsError, match=r"fedavg seed 2 .* different float_rounds"):
        summarized([*BY_HAND, longer])
    longer = record_by_hand("krum", 0, [0.1] * 7)
    with pytest.raises(SettingsError, match=r"krum seed 0 .* different float_rounds"):
        summarized([*BY_HAND, longer])
    elsewhere = record_by_hand("krum", 1, [0.1] * 6, test_sha256="of other lesions")
    with pytest.raises(SettingsError, match="different test images"):
        summarized([*BY_HAND, elsewhere])
    # A strategy's own setting may differ from what another one has not.
    eta = {"server_learning_rate": 0.1}
    own = record_by_hand("fedyogi", 0, [0.1] * 6, settings={**BY_HAND[0]["settings"], **eta})
    assert len(summarized([*BY_HAND, own])) == 6


def test_the_figure_shows_each_layout() -> None:
    panels = [a for a in accuracy_over_bytes(summarized(BY_HAND)).axes if a.get_title(loc="left")]
    assert [a.get_title(loc="left") for a in panels] == [
        "source", "dirichlet:10:0.1", "dirichlet:10:0.3",
    ]  # fmt: skip
    lines = {line.get_label(): line for line in panels[0].lines}
    sent = np.asarray(lines["fedavg"].get_xdata())
    accuracy = np.asarray(lines["fedadam"].get_ydata())
    assert sent.tolist() == [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]
    assert accuracy.tolist() == pytest.approx([0.1, 0.25, 0.31, 0.35, 0.36, 0.39])


def test_the_commands(made: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    def invoke(*arguments: str) -> Any:
        return CliRunner().invoke(cli, ["bench", "strategies", *arguments])

    figure = tmp_path / "figure.svg"
    shown = invoke("table", str(made[0]), "--figure", str(figure))
    assert "| iid:2 | fedmedian | 1 |" in shown.output and "<svg" in figure.read_text()
    (first, second) = json.loads(invoke("table", str(made[0]), "--json").stdout)["rows"]
    assert [first["strategy"], second["strategy"]] == ["fedavg", "fedmedian"]
    assert first["mb"]["up"]["mean"] == made[1][0]["totals"]["bytes_up"] / 1e6
    assert "has no record" in str(invoke("table", str(tmp_path)).exception)
    (tmp_path / "other-seed-1.json").write_text("{}")
    assert "no record of the strategies benchmark" in str(invoke("table", str(tmp_path)).exception)
