import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_client.commands.client import client
from edge_client.service import EdgeClient, EdgeSettings
from tests.edge_client.test_service import MISLABELLED, install


@pytest.fixture
def site(tmp_path: Path) -> str:
    lenient = EdgeClient(tmp_path, EdgeSettings(tolerance=1.0))
    install(lenient, 1)
    install(lenient, 2, MISLABELLED)
    return str(tmp_path)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(client, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_status(site: str) -> None:
    assert json.loads(run("status", "--state", site, "--json"))["version"] == "2"
    assert "software backend" in run("status", "--state", site)


def test_versions(site: str) -> None:
    rows = json.loads(run("versions", "--state", site, "--json"))
    assert [(row["version"], row["current"]) for row in rows] == [("1", False), ("2", True)]
    assert run("versions", "--state", site).splitlines()[1].startswith("* 2")


def test_rollback(site: str) -> None:
    assert json.loads(run("rollback", "--state", site, "--json"))["version"] == "1"
    assert json.loads(run("status", "--state", site, "--json"))["version"] == "1"


def test_a_wrong_folder_is_one_line_and_not_made(tmp_path: Path) -> None:
    for command in ("status", "versions", "rollback"):
        ran = subprocess.run(
            [sys.executable, "-m", "simulation.cli", "client", command, "--state", "nowhere"],
            cwd=tmp_path,
            env={"PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 20
        assert len(ran.stderr.splitlines()) == 1 and "nowhere" in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from edge_client.commands.client import client\n"
        "try: client(['status', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'numpy', 'akida', 'tensorflow', 'sklearn'} & set(sys.modules)"
    )
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    assert time.monotonic() - start < 5
