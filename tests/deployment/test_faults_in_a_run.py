"""What a long run survives: every process killed or stopped in turn, a site lost, slow or revoked.

One run goes on through all of it, fault after fault, round after round; each test waits for the
step in which its fault is to hit. At the end nothing that was finished is missing.
"""

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deployment.hospitals import Hospitals, eventually, hospitals

RUN = "long"
SITES = ("north", "south", "west")
DEADLINE = 60.0
AWAY = 600.0
ONWARD = 90.0
"""Seconds within which a run goes on after any fault of a process."""

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


class Trial:
    """The run and what is known of it."""

    def __init__(self, made: Hospitals) -> None:
        self.hospitals = made

    def progress(self) -> dict[str, Any]:
        """The run's progress file."""
        path = self.hospitals.folder / "runs" / RUN / "progress.json"
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def next_step(self, step: str, site: str | None = None, text: str = "") -> int:
        """Wait for the beginning of a step of a coming round; at a site if one is named."""
        begun = self.progress()["round"]

        def there() -> bool:
            now = self.progress()
            return bool(now["round"] > begun and now["step"] == step and not now["done"])

        if site is None:
            eventually(f"step {step}", 120, there)
            return int(self.progress()["round"])
        seen = self.count(site, text)
        eventually(f"step {step}", 120, there)
        eventually(f"{site}: {text}", 60, lambda: self.count(site, text) > seen)
        return int(self.progress()["round"])

    def count(self, site: str, text: str) -> int:
        """How often a site's log has a text."""
        return len(re.findall(text, self.hospitals.clients[site].log.read_text()))

    def goes_on(self, round_number: int, step: str, seconds: float = ONWARD) -> float:
        """Seconds until the run has left a step."""
        started = time.monotonic()

        def left() -> bool:
            now = self.progress()
            return (now["round"], now["step"]) != (round_number, step) or now["done"]

        eventually(f"the run goes on after round {round_number} {step}", seconds, left)
        return time.monotonic() - started

    def results(self, round_number: int, step: str) -> dict[str, tuple[bool, str]]:
        """What became of each site in a step."""
        shown = self.hospitals.history().load_record(RUN)
        return {
            r.site: (r.accepted, r.reason)
            for r in shown.site_results
            if (r.round, r.step) == (round_number, step)
        }


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory, data: dict[str, Path]) -> Iterator[Trial]:
    with hospitals(tmp_path_factory.mktemp("faults"), relayed=True) as made:
        made.start_server()
        for site in SITES:
            made.join(site, data[site])
            made.clients[site].start()
        made.approve(*SITES)
        made.wait_online(*SITES)
        made.start_run(RUN, "--rounds", "200", "--deadline", str(DEADLINE))
        made.wait_step(RUN, 1, "evaluate", 180)
        yield Trial(made)


SUPERLINK, SERVER_APP, FRONT = ("flower-superlink",), ("flwr-serverapp",), ("server.front",)
NODE, TRAINER = ("edge_client.flower_node",), ("edge_client.flower_runner",)
TRAINING, DEPLOYING = "Receiving: train", "Receiving: query.deploy"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
@pytest.mark.parametrize("process", [SUPERLINK, SERVER_APP, FRONT], ids=lambda p: p[0])
def test_a_process_of_the_server_ends_while_sites_train(
    trial: Trial, process: tuple[str, ...], number: int
) -> None:
    at = trial.next_step("train", "north", TRAINING)
    trial.hospitals.server.kill(*process, number=number)
    took = trial.goes_on(at, "train")
    record(f"{signal.Signals(number).name} of {process[0]} while sites train", took)


def test_a_node_is_killed_while_its_site_trains(trial: Trial) -> None:
    at = trial.next_step("train", "west", TRAINING)
    trial.hospitals.clients["west"].kill(*NODE)
    took = trial.goes_on(at, "train")
    record("SIGKILL of SuperNode while it trains", took)
    accepted, reason = trial.results(at, "train")["west"]
    assert not accepted and reason
    trial.hospitals.wait_online("west", seconds=150)


def test_a_node_is_asked_to_end_and_is_back_at_once(trial: Trial) -> None:
    at = trial.next_step("train", "west", TRAINING)
    trial.hospitals.clients["west"].kill(*NODE, number=signal.SIGTERM)
    took = trial.goes_on(at, "train")
    record("SIGTERM of SuperNode while it trains", took)
    trial.hospitals.wait_online("west", seconds=60)


@pytest.mark.parametrize("moment", ["train", "deploy"])
def test_the_trainer_is_killed_while_it(trial: Trial, moment: str) -> None:
    text = {"train": TRAINING, "deploy": DEPLOYING}[moment]
    at = trial.next_step(moment, "west", text)
    trial.hospitals.clients["west"].kill(*TRAINER)
    took = trial.goes_on(at, moment)
    record(f"SIGKILL of the trainer in step {moment}", took)
    later = trial.next_step("evaluate")
    assert trial.results(later, "train")["west"][0], "the site takes part in the next round"


def test_a_site_slower_than_the_deadline_costs_itself_the_round(trial: Trial) -> None:
    at = trial.next_step("train", "west", TRAINING)
    pid = trial.hospitals.clients["west"].kill(*TRAINER, number=signal.SIGSTOP)
    took = trial.goes_on(at, "train", DEADLINE + 30)
    os.kill(pid, signal.SIGCONT)
    record("a site slower than the deadline", took)
    accepted, reason = trial.results(at, "train")["west"]
    assert not accepted and reason
    again = trial.next_step("evaluate")
    eventually("west is in again", 60, lambda: trial.results(again, "train").get("west"))


def test_an_upload_is_cut_in_the_middle(trial: Trial) -> None:
    relay = trial.hospitals.relay
    assert relay is not None
    at = trial.next_step("train", "west", "Receiving: train")
    relay.cut_upload_after = 40_000
    took = trial.goes_on(at, "train")
    record("a cut in the middle of an upload", took)
    eventually("the cut was made", 30, lambda: relay.cuts)
    later = trial.next_step("evaluate")
    assert sum(ok for ok, _ in trial.results(later, "train").values()) >= 2


def test_all_sites_lose_the_network_for_a_while(trial: Trial) -> None:
    relay = trial.hospitals.relay
    assert relay is not None
    at = trial.next_step("train", "north", TRAINING)
    relay.down = True
    relay.drop()
    time.sleep(20)
    relay.down = False
    took = trial.goes_on(at, "train", DEADLINE + ONWARD)
    record("all sites cut off for 20 s", took)


def test_the_database_is_locked_for_a_while(trial: Trial) -> None:
    import sqlite3

    at = trial.next_step("train", "north", TRAINING)
    connection = sqlite3.connect(trial.hospitals.folder / "history.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    time.sleep(25)
    connection.rollback()
    connection.close()
    took = trial.goes_on(at, "train", 2 * ONWARD)
    record("the history's database locked for 25 s", took)


@pytest.mark.timeout(1500)
def test_a_site_is_back_after_ten_minutes(trial: Trial) -> None:
    west = trial.hospitals.clients["west"]
    west.stop()
    left = trial.progress()["round"]
    time.sleep(AWAY)
    assert trial.progress()["round"] > left + AWAY / DEADLINE, "rounds did not wait for it"
    started = time.monotonic()
    west.start()

    def in_again() -> bool:
        return trial.results(trial.progress()["round"], "train").get("west", (False, ""))[0]

    eventually("west takes part", 180, in_again)
    record("start of a site that was away for ten minutes", time.monotonic() - started)


def test_a_site_is_revoked_while_it_trains(trial: Trial) -> None:
    at = trial.next_step("train", "south", TRAINING)
    trial.hospitals.coordinator("site", "revoke", "south")
    took = trial.goes_on(at, "train")
    record("a site revoked while it trains", took)
    later = trial.next_step("evaluate")
    assert set(trial.results(later, "train")) == {"north", "west"}, "it is not asked any more"
    eventually(
        "the site is told", 120, lambda: trial.hospitals.clients["south"].said("has revoked")
    )


def test_a_site_is_gone_for_good(trial: Trial) -> None:
    trial.hospitals.clients["west"].stop()
    later = trial.next_step("evaluate")
    accepted, reason = trial.results(later, "train")["west"]
    assert not accepted and reason


def test_nothing_that_was_finished_is_missing(trial: Trial) -> None:
    """Every round that the history calls finished has its version, whole, and it was signed."""
    from common.bundle import load_bundle

    record_ = trial.hospitals.history().load_record(RUN)
    done = [r.number for r in record_.rounds if r.finished_at is not None]
    assert done == list(range(1, len(done) + 1)) and len(done) > 10
    for number in done:
        bundle = load_bundle(trial.hospitals.folder / "runs" / RUN / "versions" / str(number))
        assert bundle.card.version == number
    assert {v.version for v in record_.versions} >= set(done)
    print("\n".join(RECORDED))


RECORDED: list[str] = []


def record(what: str, seconds: float) -> None:
    """Keep a figure for the table of docs/faults.md."""
    RECORDED.append(f"{what}: went on after {seconds:.0f} s")
    path = os.environ.get("FEDQANA_FAULT_TABLE")
    if path:
        with Path(path).open("a") as stream:
            stream.write(RECORDED[-1] + "\n")
