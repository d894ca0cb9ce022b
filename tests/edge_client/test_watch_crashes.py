"""A watcher that is killed loses no case and has none learned twice."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_client.watch_records import RowRecords, Settled
from edge_client.watched_folder import WatchSettings, scan_once
from tests.edge_client.watching import (
    CODES,
    Learner,
    files,
    no_syncing,
    png,
    put,
    put_batch,
    scan,
    table,
)

ROOT = Path(__file__).parents[2]
STRICT = WatchSettings(settle=0.0, patience=0.0, codes=CODES)


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    with no_syncing():
        yield


def prepare(folder: Path) -> None:
    """Two good files, one of which also has rows that are refused, and one that is no list."""
    put_batch(folder, "a.csv", 3)
    put_batch(folder, "b.csv", 2, first=3)
    with (folder / "b.csv").open("a") as stream:
        stream.write("0.png,unheard of,case-x,\nabsent.png,nv,case-y,\n")
    put(folder, "c.csv", "no list\n")


def check(folder: Path, learner: Learner) -> None:
    """All is as it would be without a kill, but for learned rows that are known already."""
    assert learner.learned == {f"case-{i}": CODES[i % 2] for i in range(5)}
    assert files(folder) == {
        *(f"{i}.png" for i in range(5)),
        *("done/a.csv", "done/a.results.csv", "done/b.csv", "done/b.results.csv"),
        *("failed/b.csv", "failed/c.csv", "failed/c.csv.reason.txt"),
    }
    rows = table(folder / "done" / "a.results.csv") + table(folder / "done" / "b.results.csv")
    assert [r["case"] for r in rows if r["result"] != "refused"] == [f"case-{i}" for i in range(5)]
    assert sum(r["result"] == "refused" for r in rows) == 2
    assert len(table(folder / "failed" / "b.csv")) == 2


def dies_at(moment: int, work: Callable[[], object]) -> bool:
    """Do the work in a process that kills itself before or after its n-th change on disk.

    False where it came to its end before.
    """
    pid = os.fork()
    if pid == 0:
        passed = 0

        def tick() -> None:
            nonlocal passed
            passed += 1
            if passed == moment:
                os.kill(os.getpid(), signal.SIGKILL)

        def deadly(change: Callable[..., Any]) -> Callable[..., Any]:
            def changed(*arguments: Any, **settings: Any) -> Any:
                tick()
                result = change(*arguments, **settings)
                tick()
                return result

            return changed

        for name in ("fsync", "rename", "replace", "unlink", "mkdir", "chmod"):
            setattr(os, name, deadly(getattr(os, name)))
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(pid, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status != 0


def test_killed_at_every_change_on_disk(tmp_path: Path) -> None:
    prepare(tmp_path / "prepared")
    moment = 0
    while True:
        moment += 1
        folder, state = tmp_path / str(moment), tmp_path / f"{moment}.journal"
        shutil.copytree(tmp_path / "prepared", folder)

        def work(folder: Path = folder, state: Path = state) -> None:
            scan_once(folder, Learner(state), STRICT)

        killed = dies_at(moment, work)
        learner = Learner(state)
        known = set(learner.learned)
        scan(folder, learner, STRICT)
        check(folder, learner)
        repeated = [case for _, _, case, _ in learner.calls if case in known]
        assert len(repeated) <= 1, "only what was under way is handed over again"
        if not killed:
            break
        shutil.rmtree(folder)
    assert moment > 60


def test_killed_twice_at_any_two_moments(tmp_path: Path) -> None:
    prepare(tmp_path / "prepared")
    moments = random.Random(5)
    for trial in range(40):
        folder, state = tmp_path / str(trial), tmp_path / f"{trial}.journal"
        shutil.copytree(tmp_path / "prepared", folder)

        def work(folder: Path = folder, state: Path = state) -> None:
            scan_once(folder, Learner(state), STRICT)

        for _ in range(2):
            dies_at(moments.randrange(1, 90), work)
        learner = Learner(state)
        scan(folder, learner, STRICT)
        check(folder, learner)


WATCH = """
import sys, threading, time
from pathlib import Path
from edge_client.watched_folder import WatchSettings, watch
from tests.edge_client.watching import Learner
learner = Learner(Path(sys.argv[2]))
def learn(*case):
    with open(sys.argv[3], "a") as calls:
        calls.write(case[2] + chr(10))
    time.sleep(0.01)
    outcome = learner(*case)
    time.sleep(0.01)
    return outcome
print("ready", flush=True)
watch(Path(sys.argv[1]), learn, 0.01, threading.Event(), WatchSettings(settle=0.0))
"""


def test_a_real_process_is_killed_again_and_again(tmp_path: Path) -> None:
    folder, state, calls = tmp_path / "in", tmp_path / "cases.journal", tmp_path / "calls"
    for name, first in (("a.csv", 0), ("b.csv", 20), ("c.csv", 40)):
        put_batch(folder, name, 20, first=first)
    moments, kills = random.Random(3), 0
    arguments = [sys.executable, "-c", WATCH, str(folder), str(state), str(calls)]
    while list(folder.glob("*.csv")):
        assert kills < 40
        process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(moments.uniform(0.05, 0.4))
        process.kill()
        process.wait()
        process.stdout.close()
        kills += 1
    assert kills >= 3
    learner = Learner(state)
    assert learner.learned == {f"case-{i}": CODES[i % 2] for i in range(60)}
    handed = Counter(calls.read_text().split())
    assert sum(handed.values()) - 60 <= kills
    for name in "abc":
        results = table(folder / "done" / f"{name}.results.csv")
        assert len(results) == 20
        assert {r["result"] for r in results} <= {"learned", "duplicate"}
    assert scan(folder, learner).files_done == 0


def test_records_that_were_cut_short(tmp_path: Path) -> None:
    records = RowRecords(tmp_path, "list.csv")
    records.settle("1", Settled("learned", "", "A"))
    records.settle("2", Settled("refused", "é\n", "B"))
    whole = records.path.read_bytes()
    for length in range(len(whole) + 1):
        records.path.write_bytes(whole[:length])
        again = RowRecords(tmp_path, "list.csv")
        assert set(again.settled) == {k for k in "12" if again.settled.get(k)}
        again.settle("3", Settled("duplicate", "", "C"))
        read = RowRecords(tmp_path, "list.csv").settled
        assert read == again.settled and read["3"].case_id == "C"
        assert ("1" in read) == (length >= whole.index(b"\n") + 1)


def test_a_new_file_of_the_same_name_is_another_one(tmp_path: Path) -> None:
    """Killed between moving a file and forgetting it, then its name is used again."""
    folder, learner = tmp_path / "in", Learner(tmp_path / "cases.journal")
    put(folder, "a.png", png(1))
    put(folder, "list.csv", "image,dx\na.png,neither\n")
    for moment in range(1, 60):
        copy = tmp_path / str(moment)
        shutil.copytree(folder, copy)
        if not dies_at(moment, lambda copy=copy: scan_once(copy, learner, STRICT)):  # type: ignore[misc]
            break
        if not (copy / "list.csv").exists():
            put(copy, "list.csv", "image,dx\na.png,nv\n")
            allowed = WatchSettings(settle=0.0, codes=("nv", "neither"))
            report = scan(copy, Learner(tmp_path / f"{moment}.journal"), allowed)
            assert report.learned == 1 and report.files_done == 1
            assert len(list((copy / "done").glob("*.results.csv"))) == 2
    assert moment > 20


def test_a_full_disk_keeps_rows_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, learner = tmp_path / "in", Learner(tmp_path / "cases.journal")
    put_batch(folder, "a.csv", 3)
    put_batch(folder, "b.csv", 2, first=3)
    settle = RowRecords.settle

    def full(self: RowRecords, key: str, settled: Settled) -> None:
        if len(self.settled) == 1:
            raise OSError(28, "No space left on device")
        settle(self, key, settled)

    monkeypatch.setattr(RowRecords, "settle", full)
    report = scan(folder, learner)
    assert report.halted and report.files_waiting == 2
    monkeypatch.setattr(RowRecords, "settle", settle)
    report = scan(folder, learner)
    assert report.files_done == 2 and (report.learned, report.duplicates) == (1, 2)
    assert len(learner.learned) == 5
