"""Records of a simulated run as its sites serve it, beside what the run's final test counted."""

import json
import shutil
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from common.errors import RunNotFound, SettingsError
from common.reliability import reliability
from edge_client.service import EdgeClient
from edge_client.site import SiteFolder
from server.checkpoint import CheckpointFile
from server.run_folder import RunFolder
from simulation.bench.accuracy.deployed import DEPLOYED_ROWS
from simulation.cli import cli
from tests.support.tiny_run import record_of

pytestmark = pytest.mark.timeout(900)  # real runs, on a machine that may be busy

HEAD_OF = {
    "program": "akida",
    "program-flips": "akida_symmetries",
    "site-program": "akida",  # nothing is fine-tuned in this run
    "site-program-flips": "akida_symmetries",
    "answers": "combined",
    "answers-flips": "symmetries",
}


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["bench", "accuracy", *arguments])


def deployed(finished: Path, out: Path, *options: str) -> dict[str, dict[str, Any]]:
    """The records of the run by row."""
    result = invoke(
        *("deployed", finished.name, "--runs-out", str(finished.parent)),
        *("--out", str(out), "--json", *options),
    )
    assert result.exit_code == 0, (result.output, result.exception)
    return {record["row"]: record for record in json.loads(result.stdout)["records"]}


@pytest.fixture(scope="module")
def records_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("records")


@pytest.fixture(scope="module")
def records(finished: Path, records_folder: Path) -> dict[str, dict[str, Any]]:
    return deployed(finished, records_folder)


def test_rows_are_what_the_final_test_counted(
    finished: Path, records: dict[str, dict[str, Any]]
) -> None:
    assert tuple(records) == DEPLOYED_ROWS == tuple(HEAD_OF)
    counted = [r.result for r in record_of(finished).site_results if r.step == "final"]
    assert len(counted) == 4
    for row, head in HEAD_OF.items():
        confusion = np.sum([counts[head]["confusion"] for counts in counted], axis=0)
        assert records[row]["result"]["confusion"] == confusion.tolist(), row
        assert len(records[row]["result"]["sites"]) == 4
        assert records[row]["overlap"] == {"lesions": 0.0, "images": 0.0}


def test_answers_are_calibrated_as_their_sites_do(
    finished: Path, records: dict[str, dict[str, Any]]
) -> None:
    sites = [path for path in (finished / "sites").iterdir() if path.is_dir()]
    assert all(EdgeClient(s / "state", read_only=True).status()["all_symmetries"] for s in sites)
    judged = []
    for site in sorted(sites):
        client, data = EdgeClient(site / "state", read_only=True), SiteFolder(site).read()
        codes = data.classes.codes
        scores = client.decide(data.test.images, codes)
        shares = client.calibration().probabilities(scores, codes)
        judged.append((shares, data.test.labels, scores.argmax(axis=1)))
    pooled = reliability(*(np.concatenate(values) for values in zip(*judged, strict=True)))
    assert records["answers-flips"]["result"]["ece"]["calibrated"] == pytest.approx(pooled.ece)
    assert records["answers-flips"]["result"]["ece"]["temperature"] is None  # each has its own
    shares = records["answers-flips"]["result"]["referral"]["shares"]
    assert shares[0] == 0.0 and shares[-1] == 0.5


def test_records_are_made_once_and_stand_in_the_table(
    finished: Path, records: dict[str, dict[str, Any]], records_folder: Path
) -> None:
    before = {file: file.stat().st_mtime_ns for file in records_folder.glob("*.json")}
    assert len(before) == len(DEPLOYED_ROWS) and deployed(finished, records_folder) == records
    assert before == {file: file.stat().st_mtime_ns for file in records_folder.glob("*.json")}
    printed = invoke("table", str(records_folder)).stdout
    assert "| answers-flips |" in printed and "least confident are referred" in printed
    assert "software backend (akida" in printed


def test_validation_lesions_are_judged_for_choices(
    finished: Path, records: dict[str, dict[str, Any]], tmp_path: Path, records_folder: Path
) -> None:
    held = deployed(finished, tmp_path, "--on", "validation")
    record = held["answers-flips"]
    assert record["settings"]["part"] == "validation"
    assert record["test"]["sha256"] != records["answers-flips"]["test"]["sha256"]
    assert record["result"]["ece"]["calibrated"] is None  # these lesions fit it
    runs = ("deployed", finished.name, "--runs-out", str(finished.parent))
    mixed = invoke(*runs, "--out", str(records_folder), "--on", "validation")
    assert isinstance(mixed.exception, SettingsError) and "part" in str(mixed.exception)


def test_a_record_is_of_one_run(
    finished: Path, records: dict[str, dict[str, Any]], records_folder: Path, tmp_path: Path
) -> None:
    """Another run of the same seed and settings, or of other sites, is not taken for it."""
    other = tmp_path / "runs" / finished.name
    shutil.copytree(finished, other)
    settings = json.loads((other / "data.json").read_text())
    (other / "data.json").write_text(json.dumps({**settings, "arrivals": 0.1}))
    runs = ("deployed", other.name, "--runs-out", str(other.parent), "--out", str(records_folder))
    assert "arrivals" in str(invoke(*runs).exception)
    (other / "data.json").write_text(json.dumps(settings))
    for file in records_folder.glob("program-seed-*.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "run": "another"}))
    refused = invoke(*runs).exception
    assert isinstance(refused, SettingsError) and "is of run another" in str(refused)


def test_a_run_under_way_is_no_row_yet(finished: Path, tmp_path: Path) -> None:
    other = tmp_path / "runs" / finished.name
    shutil.copytree(finished, other)
    file = CheckpointFile(RunFolder(other).checkpoint)
    state = file.load()
    assert state is not None
    state.step = "deploy"
    file.save(state)
    result = invoke("deployed", other.name, "--runs-out", str(other.parent), "--out", str(tmp_path))
    assert isinstance(result.exception, SettingsError) and "--resume" in str(result.exception)


def test_sites_that_answer_by_different_views_have_no_calibration_in_common(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = cycle((True, False))  # of the sites, in turn
    monkeypatch.setattr(EdgeClient, "status", lambda client: {"all_symmetries": next(views)})
    found = deployed(finished, tmp_path)
    assert all(found[row]["result"]["ece"]["temperature"] is not None for row in HEAD_OF)


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    result = invoke("deployed", "none", "--runs-out", str(tmp_path), "--out", str(tmp_path))
    assert isinstance(result.exception, RunNotFound)
