"""Several processes on one history, and processes that are killed while they write."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from sqlalchemy import make_url

from server.history.engine import Database
from server.history.store import open_history


def start_writer(url: str, run_id: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.history.writer", url, run_id, str(count)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )


@pytest.mark.parametrize("run_ids", [("a", "b"), ("same", "same")])
def test_two_processes_write_at_once(url: str, run_ids: tuple[str, str]) -> None:
    # Nothing is there yet: both also try to set the database up.
    writers = [start_writer(url, run_id, 20) for run_id in run_ids]
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors
    with open_history(url) as history:
        events = []
        for run_id in set(run_ids):
            record = history.load_record(run_id)
            assert [round_.number for round_ in record.rounds] == list(range(1, 21))
            events += record.events
    assert len({event.number for event in events}) == 40


def test_a_new_sqlite_file_opened_by_many_at_once_refuses_none(tmp_path: Path) -> None:
    # All want to change its journal mode; without looking again one is refused in 1 of 20 trials.
    together = Barrier(8)

    def connect(url: str) -> None:
        database = Database(url)
        together.wait()
        with database.reading() as connection:
            connection.exec_driver_sql("SELECT 1")
        database.close()

    with ThreadPoolExecutor(8) as pool:
        for trial in range(100):
            list(pool.map(connect, [f"sqlite:///{tmp_path}/{trial}.db"] * 8))


def test_a_killed_writer_leaves_everything_that_it_was_told_is_saved(url: str) -> None:
    generator = np.random.default_rng(11)
    for trial in range(3):
        run_id = f"run-{trial}"
        writer = start_writer(url, run_id, 100_000)
        assert writer.stdout is not None
        acknowledged = 0
        for _ in range(int(generator.integers(1, 25))):
            acknowledged = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        rest, errors = writer.communicate(timeout=60)
        assert writer.returncode == -signal.SIGKILL, errors
        acknowledged = int(rest.split()[-1]) if rest.split() else acknowledged
        with open_history(url) as history:
            record = history.load_record(run_id)
            # The step under way may be saved too, its round without its event yet.
            assert acknowledged <= len(record.events) <= len(record.rounds) <= acknowledged + 1
            assert [e.round for e in record.events] == list(range(1, len(record.events) + 1))
            if make_url(url).get_backend_name() == "sqlite":
                with history._database.reading() as connection:
                    check = connection.exec_driver_sql("PRAGMA integrity_check").scalar()
                assert check == "ok"
            history.finish_run(run_id, "stopped")


def test_a_writer_killed_while_it_sets_up_leaves_a_database_to_open(url: str) -> None:
    for seconds in (0.3, 0.4, 0.5):  # about when the imports are done
        writer = start_writer(url, "run", 100_000)
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(timeout=seconds)
        writer.kill()
        writer.communicate(timeout=60)
    with open_history(url) as history:
        assert len(history.list_runs()) <= 1
