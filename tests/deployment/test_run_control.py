"""A coordinator's commands on a real server with one hospital: stop, resume, watch, roll back."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployment.hospitals import FEDQANA, Hospitals, eventually, hospitals

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, data: dict[str, Path]) -> Iterator[Hospitals]:
    with hospitals(tmp_path_factory.mktemp("control")) as found:
        found.start_server()
        found.join("north", data["north"])
        found.clients["north"].start()
        found.approve("north")
        found.wait_online("north")
        yield found


def test_a_run_is_stopped_stays_stopped_and_goes_on_where_it_was(made: Hospitals) -> None:
    made.start_run("one", "--rounds", "2", "--qat-rounds", "0", "--deadline", "60")
    refused = made.coordinator("rounds", "start", "--run", "two", check=False)
    assert refused.returncode == 33 and "run one is under way" in refused.stderr
    assert not (made.folder / "runs" / "two").exists()
    made.wait_step("one", 1, "evaluate")
    made.coordinator("rounds", "stop", "one")
    made.wait_for("one", "stopped", 60, lambda s: s["state"] == "stopped" and s["ended"])
    eventually("its process ends", 60, lambda: made.server.child("flwr-serverapp") is None)
    time.sleep(8)  # longer than the server's look at runs that are to go on
    assert made.server.child("flwr-serverapp") is None
    assert made.status("one")["reason"] == "stopped by the coordinator"
    made.coordinator("rounds", "resume", "latest")
    made.wait_finished("one")
    said = made.coordinator("rounds", "logs", "one", "--json").stdout
    assert said.count("process started") == 2
    assert made.coordinator("rounds", "resume", "one", check=False).returncode == 33


def test_watching_ends_with_the_run_and_prints_json(made: Hospitals) -> None:
    command = [FEDQANA, "rounds", "status", "one", "--watch", "--json"]
    done = subprocess.run(
        [*command, "--server", str(made.folder)], capture_output=True, text=True, timeout=60
    )
    assert json.loads(done.stdout.splitlines()[-1])["state"] == "finished"


def test_versions_are_promoted_and_rolled_back(made: Hospitals) -> None:
    for version in ("1", "2"):
        told = json.loads(made.coordinator("models", "promote", f"one:{version}", "--json").stdout)
        made.wait_finished(told["delivery"], 90)
    back = json.loads(made.coordinator("models", "rollback", "--json").stdout)
    assert back["model"] == "one:1"
    made.wait_finished(back["delivery"], 90)
    listed = json.loads(made.coordinator("models", "list", "--json").stdout)
    assert [(v["name"], v["promoted"]) for v in listed] == [("one:1", True), ("one:2", False)]
    nothing = made.coordinator("models", "rollback", check=False)
    assert nothing.returncode == 20 and "nothing before" in nothing.stderr
