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


def test_a_version_below_what_the_policy_asks_for_is_not_switched_to(made: Hospitals) -> None:
    before = _program(made)
    policy = made.home("north") / "policy.toml"
    kept = policy.read_text()
    policy.write_text("[acceptance]\nmin_balanced_accuracy = 1.0\n")
    try:
        told = json.loads(made.coordinator("models", "promote", "one:2", "--json").stdout)
        status = made.wait_finished(told["delivery"], 90)
    finally:
        policy.write_text(kept)
    assert "kept what they had: north" in status["progress"]["message"]
    assert _program(made) == before


def _program(made: Hospitals) -> str:
    """The version whose program runs at the hospital."""
    found: dict[str, dict[str, str]] = json.loads(made.client("north", "status", "--json").stdout)
    return found["state"]["program_version"]


@pytest.mark.faults
def test_a_server_whose_database_is_gone_says_so_and_refuses_no_site(made: Hospitals) -> None:
    away = made.root / "away"
    away.mkdir()
    files = list(made.folder.glob("history.db*"))
    for file in files:
        file.rename(away / file.name)
    refused = made.coordinator("site", "list", check=False)
    assert refused.returncode == 42 and "is gone; mount its disk, or restore" in refused.stderr
    time.sleep(8)  # longer than the server's look at its sites
    assert not (made.folder / "history.db").exists()
    for file in files:
        (away / file.name).rename(file)
    made.wait_online("north", seconds=60)
    made.start_run("after", "--rounds", "1", "--qat-rounds", "0")
    made.wait_finished("after")


@pytest.mark.faults
def test_a_process_that_was_started_unnoticed_is_found_again(made: Hospitals) -> None:
    """As when the server is killed between the start and writing down what it has started."""
    made.start_run("lost", "--rounds", "3", "--qat-rounds", "0")
    made.wait_step("lost", 1, "evaluate")
    path = made.folder / "runs" / "lost" / "control.json"
    control = json.loads(path.read_text())
    path.write_text(json.dumps({**control, "flower_runs": []}))
    eventually(
        "it is found",
        60,
        lambda: json.loads(path.read_text())["flower_runs"] == control["flower_runs"],
    )
    made.wait_finished("lost")
    said = made.coordinator("rounds", "logs", "lost", "--json").stdout
    assert said.count("process started") == 1


@pytest.mark.faults
def test_a_site_that_joins_again_has_a_new_key_and_all_of_its_cases(
    made: Hospitals, data: dict[str, Path]
) -> None:
    image = str(sorted(data["west"].rglob("*.png"))[0])
    made.client("north", "learn", image, "--diagnosis", "mel")
    cases = made.client("north", "cases", "--json").stdout
    key = (made.home("north") / "keys" / "site.key").read_bytes()
    made.coordinator("site", "revoke", "north")
    made.clients["north"].stop()
    file = made.root / "again.json"
    made.coordinator("site", "invite", "north", "--out", str(file))
    made.client("north", "rejoin", str(file))
    assert (made.home("north") / "keys" / "site.key").read_bytes() != key
    made.approve("north")
    made.clients["north"].start()
    made.wait_online("north")
    eventually(
        "its cases",
        60,
        lambda: made.client("north", "cases", "--json", check=False).stdout == cases,
    )
    assert made.client("north", "audit", "--verify").returncode == 0
    made.start_run("rejoined", "--rounds", "1", "--qat-rounds", "0")
    status = made.wait_finished("rejoined")
    assert [(s["site"], s["accepted"]) for s in status["sites"]] == [("north", True)]
