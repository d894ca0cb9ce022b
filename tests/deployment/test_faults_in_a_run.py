"""What a long run survives: every process killed or stopped in turn, a site lost, slow or revoked.

One run goes on through all of it, fault after fault, round after round; each test waits for the
step in which its fault is to hit. At the end nothing that was finished is missing.
"""

import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import Any

import psutil
import pytest

from common.errors import ServiceUnavailable
from edge_client.local_service.client import LocalServiceClient
from edge_client.local_service.settings import own_address
from tests.deployment.hospitals import Hospitals, eventually, hospitals
from tests.edge_client.cases import arriving
from tests.local_service.running import png

RUN = "long"
SITES = ("north", "south", "west")
DEADLINE = 60.0
UPLOADED = 40_000
"""Bytes of an upload, after which something happens: a fifth of the small network's update."""
TAUGHT_AT = "north"
TIMES = 2
"""How often the local service ends in a row: the pause before each start is twice the last."""
PAUSE = 8.0
"""Seconds between two cases that are taught while the run goes on."""
AWAY = 600.0
ONWARD = 90.0
"""Seconds within which a run goes on after any fault of a process."""

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


class Trial:
    """The run and what is known of it."""

    def __init__(self, made: Hospitals) -> None:
        self.hospitals = made
        self.teacher = Teacher(made.home(TAUGHT_AT))

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

    def site_of(self, port: int) -> str:
        """The site whose node has a connection from this port."""
        for site, client in self.hospitals.clients.items():
            node = client.child(*NODE)
            with suppress(psutil.Error):
                if node and port in {c.laddr.port for c in node.net_connections("tcp")}:
                    return site
        raise AssertionError(f"no node has port {port}")

    def goes_on(self, round_number: int, step: str, seconds: float = ONWARD) -> float:
        """Seconds until the run has left a step."""
        started = time.monotonic()

        def left() -> bool:
            now = self.progress()
            return (now["round"], now["step"]) != (round_number, step) or now["done"]

        eventually(f"the run goes on after round {round_number} {step}", seconds, left)
        return time.monotonic() - started

    def takes_part(self, site: str, rounds: int = 3) -> None:
        """Assert that a site's update counts in one of the next rounds."""
        for _ in range(rounds):
            found = self.next_step("evaluate")
            if self.results(found, "train").get(site, (False, ""))[0]:
                return
        raise AssertionError(f"{site} did not take part in {rounds} rounds")

    def results(self, round_number: int, step: str) -> dict[str, tuple[bool, str]]:
        """What became of each site in a step."""
        shown = self.hospitals.history().load_record(RUN)
        return {
            r.site: (r.accepted, r.reason)
            for r in shown.site_results
            if (r.round, r.step) == (round_number, step)
        }


class Teacher:
    """Teaches cases to one site's chip, one after the other, and knows what was acknowledged."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._cases = arriving(1000, seed=71, round_number=1)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._teach, daemon=True)
        self.pause = PAUSE
        self.acknowledged: list[str] = []

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self) -> None:
        """Teach no more."""
        self._end.set()
        self._thread.join(60)

    def service(self) -> LocalServiceClient:
        """A connection to the site's local service."""
        return LocalServiceClient(own_address(self._home))

    def missing(self) -> list[str]:
        """Acknowledged cases that the site does not know, once its service answers."""
        acknowledged, listed, token = list(self.acknowledged), set(), ""
        eventually("the local service answers", ONWARD, self.answers)
        with self.service() as service:
            while True:
                page = service.list_cases(1000, token)
                listed |= {case.case_id for case in page.cases}
                token = page.next_page_token
                if not token:
                    return [case for case in acknowledged if case not in listed]

    def answers(self) -> bool:
        """Whether the local service is up."""
        try:
            with self.service() as service:
                service.status()
        except ServiceUnavailable:
            return False
        return True

    def taught(self, more: int, seconds: float) -> None:
        """Wait until so many more cases were acknowledged."""
        before = len(self.acknowledged)
        eventually(
            f"{more} cases are learned", seconds, lambda: len(self.acknowledged) >= before + more
        )

    def _teach(self) -> None:
        for case, diagnosis in zip(self._cases, cycle(("nv", "mel", "bkl")), strict=False):
            while not self._end.is_set():
                try:
                    with self.service() as service:
                        service.learn(png(case.image), diagnosis, case.case_id, case.lesion_id)
                    self.acknowledged.append(case.case_id)
                    break
                except ServiceUnavailable:
                    time.sleep(0.2)
            if self._end.wait(self.pause):
                return


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory, data: dict[str, Path]) -> Iterator[Trial]:
    with hospitals(tmp_path_factory.mktemp("faults"), relayed=True) as made:
        made.start_server()
        for site in SITES:
            made.join(site, data[site])
            made.clients[site].start()
        made.approve(*SITES)
        made.wait_online(*SITES)
        made.start_run(RUN, "--rounds", "500", "--deadline", str(DEADLINE))
        made.wait_step(RUN, 2, "train", 240)
        found = Trial(made)
        found.teacher.start()
        yield found
        found.teacher.end()


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


BOTH = pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])


@BOTH
@pytest.mark.parametrize("moment", ["train", "deploy"])
def test_the_trainer_ends_while_it(trial: Trial, moment: str, number: int) -> None:
    text = {"train": TRAINING, "deploy": DEPLOYING}[moment]
    at = trial.next_step(moment, "west", text)
    trial.hospitals.clients["west"].kill(*TRAINER, number=number)
    took = trial.goes_on(at, moment)
    record(f"{signal.Signals(number).name} of the trainer in step {moment}", took)
    trial.takes_part("west")


@BOTH
@pytest.mark.parametrize("process", [NODE, TRAINER], ids=["node", "trainer"])
def test_a_process_of_a_site_ends_while_it_uploads(
    trial: Trial, process: tuple[str, ...], number: int
) -> None:
    relay = trial.hospitals.relay
    assert relay is not None
    hit: list[str] = []

    def end(port: int) -> None:
        site = trial.site_of(port)
        trial.hospitals.clients[site].kill(*process, number=number)
        hit.append(site)

    at = trial.next_step("train")
    relay.on_upload = (UPLOADED, end)
    took = trial.goes_on(at, "train")
    eventually("something was uploaded", 30, lambda: hit)
    record(f"{signal.Signals(number).name} of {process[0]} while it uploads", took)
    trial.hospitals.wait_online(hit[0], seconds=150)
    trial.takes_part(hit[0])


@BOTH
def test_a_whole_hospital_ends_while_it_trains(trial: Trial, number: int) -> None:
    at = trial.next_step("train", "west", TRAINING)
    west = trial.hospitals.clients["west"]
    west.stop(number)
    took = trial.goes_on(at, "train")
    record(f"{signal.Signals(number).name} of all of a hospital while it trains", took)
    west.start()
    trial.hospitals.wait_online("west", seconds=150)
    trial.takes_part("west")


@BOTH
def test_the_local_service_ends_while_the_chip_learns(trial: Trial, number: int) -> None:
    trial.teacher.pause = 0.0
    for _ in range(TIMES):
        trial.teacher.taught(3, ONWARD)
        pid = trial.hospitals.clients[TAUGHT_AT].kill("edge_client.local_service", number=number)
    started = time.monotonic()
    eventually("it has ended", ONWARD, lambda: not psutil.pid_exists(pid))
    trial.teacher.taught(1, ONWARD)
    trial.teacher.pause = PAUSE
    what = f"{signal.Signals(number).name} of the local service while it learns"
    record(f"{what}, {TIMES} times in a row", time.monotonic() - started)
    assert trial.teacher.missing() == []


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
    relay.cut_upload_after = UPLOADED
    took = trial.goes_on(at, "train")
    record("a cut in the middle of an upload", took)
    eventually("the cut was made", 30, lambda: relay.cuts)
    later = trial.next_step("evaluate")
    assert sum(ok for ok, _ in trial.results(later, "train").values()) >= 2


def test_a_version_is_changed_on_its_way(trial: Trial) -> None:
    relay = trial.hospitals.relay
    assert relay is not None
    at = trial.next_step("deploy")
    relay.damage_download = True
    took = trial.goes_on(at, "deploy")
    record("a version changed on its way", took)
    eventually("a byte was changed", 30, lambda: relay.damaged)
    later = trial.next_step("evaluate")
    assert all(ok for ok, _ in trial.results(later - 1, "deploy").values())


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
    """Every round that the history calls finished has its version, whole; every case is there."""
    from common.bundle import load_bundle

    trial.teacher.end()
    assert len(trial.teacher.acknowledged) > 50
    assert trial.teacher.missing() == []
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
