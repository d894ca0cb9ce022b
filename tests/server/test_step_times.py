"""Where a round's time goes: measured in a run, told by the report and the command line."""

import dataclasses
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.commands.run_tables import print_record
from server.report.build import write_report
from server.step_times import StepTimes, busy, steps_of, where_time_went
from tests.report import sample_record
from tests.support.tiny_run import record_of, run_tiny

SPANS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)), max_size=8)


@given(SPANS)
def test_time_in_which_somebody_is_at_work(spans: list[tuple[int, int]]) -> None:
    covered = {second for start, length in spans for second in range(start, start + length)}
    assert busy((start, start + length) for start, length in spans) == len(covered)


def test_parts_add_up_and_belong_to_one_step() -> None:
    times = StepTimes()
    with times.part("folding"):
        time.sleep(0.02)
    times.add("sites", 1.0)
    times.add("sites", 0.5)
    found = times.finished("evaluate", 2.0)
    assert found.keys() == {"evaluate", "evaluate/folding", "evaluate/sites"}
    assert found["evaluate/sites"] == 1.5 and 0.02 <= found["evaluate/folding"] < 1
    assert times.finished("bundle", 0.1) == {"bundle": 0.1}


def test_a_run_tells_where_its_time_went(tmp_path: Path) -> None:
    record = record_of(run_tiny(tmp_path, qat_rounds=0, float_rounds=2))
    for r in record.rounds:
        steps = steps_of(r.seconds)
        assert steps.keys() == {"train", "evaluate", "bundle", "deploy", "share", "checkpoint"}
        for step in steps:
            parts = [v for key, v in r.seconds.items() if key.startswith(f"{step}/")]
            assert all(value >= 0 for value in parts) and sum(parts) <= steps[step] + 0.01
        for step in ("train", "evaluate", "deploy"):  # in one process, one after the other
            said = sum(
                s.seconds for s in record.site_results if (s.round, s.step) == (r.number, step)
            )
            assert r.seconds[f"{step}/sites"] == pytest.approx(said, abs=0.05)
        for part in ("evaluate/folding", "bundle/converting", "bundle/mapping", "bundle/saving"):
            assert part in r.seconds
    went = where_time_went(r.seconds for r in record.rounds)
    whole = sum(sum(steps_of(r.seconds).values()) for r in record.rounds)
    assert sum(went.values()) == pytest.approx(whole, abs=0.05)
    assert went["training at the sites"] == sum(r.seconds["train/sites"] for r in record.rounds)


def test_where_the_time_went_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = sample_record.complete()
    page = tmp_path / "report.html"
    write_report(record, page)
    text = page.read_text(encoding="utf-8")
    assert "Where the time went" not in text  # a run of a version that did not tell
    assert "evaluate" in text and "share" in text
    seconds = {"train": 60.0, "train/sites": 45.0, "train/transport": 12.0, "checkpoint": 15.0}
    rounds = [dataclasses.replace(r, seconds=seconds) for r in record.rounds[:2]]
    write_report(dataclasses.replace(record, rounds=[*rounds, *record.rounds[2:]]), page)
    shown = " ".join(page.read_text(encoding="utf-8").split())
    assert "Where the time went" in shown and "train/sites" not in shown
    for share in ("60.0 %", "16.0 %", "20.0 %", "4.0 %"):  # of 150 s; the rest is 6 s
        assert share in shown
    print_record(dataclasses.replace(record, rounds=rounds))
    printed = capsys.readouterr().out
    assert "train 60.0, checkpoint 15.0" in printed and "train/sites" not in printed
    line = next(line for line in printed.splitlines() if "messages and waiting" in line)
    assert "24.0" in line and "16.0 %" in line
