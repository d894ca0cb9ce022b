"""`fedqana bench sites`: seconds, memory and bytes of a run, round by round."""

import subprocess
from pathlib import Path

import pytest

from server.history.engine import default_url
from server.run_folder import RunFolder
from simulation.bench.site_costs import RoundCosts, bytes_of_sites, measured
from simulation.commands.bench_sites import _HEADER, _row, _summary
from tests.cli.command import fedqana
from tests.support.tiny_run import create_tiny, record_of

pytestmark = pytest.mark.timeout(900)  # real runs, on a machine that may be busy

SITES = 5


def test_every_round_has_its_costs_and_every_message_its_bytes(tmp_path: Path) -> None:
    settings = {"float_rounds": 2, "qat_rounds": 1, "deploy_every": 2}
    folder = create_tiny(tmp_path, {"sites": f"iid:{SITES}", "arrivals": 0}, **settings)
    plan = RunFolder(folder).stored_plan().plan
    told: list[RoundCosts] = []
    database, cache = default_url(tmp_path), tmp_path / "cache"
    with subprocess.Popen(["sleep", "600"]) as other:  # it is not the run's
        try:
            found = measured(folder, plan, "in-process", None, database, cache, told.append)
        finally:
            other.kill()

    assert [(c.step, c.number, c.phase, c.deployed) for c in told] == [
        ("start", 0, "float", False),
        ("round", 1, "float", False),
        ("round", 2, "float", True),
        ("round", 3, "qat", True),
        ("final", 3, "qat", True),
    ]
    for costs in told:
        assert costs.processor > 0
        assert costs.wall > 0
        assert costs.processes == 1
        assert costs.tree <= costs.highest
        assert costs.tree == pytest.approx(costs.coordinator)

    record = record_of(folder)
    asked = [r for r in record.site_results if r.step == "train" and r.round <= 2]
    row = next(r for r in found["bytes"] if (r["phase"], r["step"]) == ("float", "train"))
    assert row["messages"] == 2 * SITES == len(asked)
    assert row["down"] == round(sum(r.bytes_down for r in asked) / len(asked))
    assert row["largest_up"] == max(r.bytes_up for r in asked)
    assert {r["step"] for r in bytes_of_sites(record)} == {
        *("train", "evaluate", "deploy", "final")
    }
    assert found["totals"]["up"] * SITES == sum(r.bytes_up for r in record.site_results)
    assert (found["sites"], found["refused"]) == (SITES, 0)

    columns = _HEADER[0].count("|")
    assert [_row(costs).count("|") for costs in told] == [columns] * len(told)
    assert f"{row['down']:,}" in "\n".join(_summary(found))


@pytest.mark.parametrize("wrong", [["--sites", "iid:0"], ["--rounds", "0"], ["--arrivals", "2"]])
def test_settings_that_do_not_fit_are_one_line(tmp_path: Path, wrong: list[str]) -> None:
    result = fedqana("bench", "sites", "--data", "synthetic:80", "--out", str(tmp_path), *wrong)
    assert result.returncode not in (0, 1, 70)
    assert len(result.stderr.splitlines()) == 1
    assert not any(tmp_path.glob("*/plan.json"))
