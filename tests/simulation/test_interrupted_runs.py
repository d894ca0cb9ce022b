"""Runs that were killed, and go on."""

import random
import signal
import time
from pathlib import Path

from server.history.engine import default_url
from server.history.store import open_history
from simulation.run import execute
from simulation.sites import NewClass
from tests.kill_trials import finish, start
from tests.support.tiny_run import (
    create_tiny,
    differences,
    fingerprint,
    position_of,
    record_of,
    run_tiny,
)


def test_a_run_killed_three_times_ends_like_one_that_was_not(
    finished: Path, tmp_path: Path
) -> None:
    """SIGKILL somewhere within training, within the bundle or deployment, and later on."""
    folder = create_tiny(tmp_path, float_rounds=2)
    moments = random.Random(time.time_ns())
    fallen = []
    for position in ("1/evaluate", "1/deploy", "2/bundle"):
        process = start(folder)
        while position_of(folder) < position and process.poll() is None:
            time.sleep(0.02)
        time.sleep(moments.uniform(0, 1.0))
        process.kill()
        process.wait()
        fallen.append(position_of(folder))
    finish(folder)
    assert differences(fingerprint(finished), fingerprint(folder)) == [], fallen


def test_a_run_killed_while_neurons_are_shared_ends_like_one_that_was_not(tmp_path: Path) -> None:
    data = {"new_class": NewClass(code="bcc", round=1, site="site-1")}
    whole = run_tiny(tmp_path / "whole", data, class_offsets=True)
    assert any(event.kind == "neurons-merged" for event in record_of(whole).events)
    folder = create_tiny(tmp_path, data, class_offsets=True)
    process = start(folder)
    while position_of(folder) != "1/share" and process.poll() is None:
        time.sleep(0.005)
    time.sleep(random.Random(time.time_ns()).uniform(0, 0.1))
    process.kill()
    assert process.wait() == -signal.SIGKILL, "the run was over before it could be killed"
    fallen = position_of(folder)
    finish(folder)
    assert differences(fingerprint(whole), fingerprint(folder)) == [], fallen


def test_a_kill_after_the_last_checkpoint_leaves_a_run_that_can_be_finished(
    tmp_path: Path,
) -> None:
    folder = run_tiny(tmp_path, qat_rounds=0)
    with open_history(default_url(tmp_path)) as history:
        history.finish_run(folder.name, "running")
    execute(folder, "in-process", tmp_path / "cache", default_url(tmp_path))
    assert record_of(folder).run.state == "finished"
