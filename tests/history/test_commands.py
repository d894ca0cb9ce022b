import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from common.errors import DatabaseUnreachable, RunNotFound, SchemaMismatch
from server.commands.database import database
from server.commands.runs import runs
from server.history import schema
from server.history.engine import default_url
from server.history.store import open_history
from tests.history.examples import example_record, example_run, save_all


@pytest.fixture
def filled(url: str) -> str:
    """URL of a history with two runs, the example the older one."""
    with open_history(url) as history:
        save_all(history, example_record())
        history.add_event("run-1", "start", "[bold] is no markup", round=1, site="berlin")
        history.save_run(example_run("run-2", datetime.now(UTC)))
    return url


def call(group: Any, *arguments: str, **environment: str) -> str:
    result = CliRunner().invoke(group, arguments, env=environment, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_list_shows_the_newest_run_first(filled: str) -> None:
    lines = call(runs, "list", "--database", filled).splitlines()
    assert lines[0].split()[:4] == ["run", "started", "state", "strategy"]
    assert [line.split()[0] for line in lines[1:]] == ["run-2", "run-1"]
    assert "2025-03-30 01:59:59 UTC" in lines[2] and "1 of 2" in lines[2]


def test_the_list_as_json(filled: str) -> None:
    listed = json.loads(call(runs, "list", "--json", FEDQANA_DATABASE=filled))
    assert [summary["run"]["run_id"] for summary in listed] == ["run-2", "run-1"]
    assert listed[1]["run"]["created_at"] == "2025-03-30T01:59:59.123457+00:00"
    assert (listed[1]["sites"], listed[1]["rounds_finished"]) == (2, 1)


def test_a_history_without_runs_says_so(url: str) -> None:
    open_history(url).close()
    assert "no runs yet" in call(runs, "list", "--database", url)
    assert json.loads(call(runs, "list", "--json", "--database", url)) == []


def test_show_tells_everything_of_a_run(filled: str) -> None:
    shown = call(runs, "show", "run-1", "--database", filled)
    for expected in (
        "running",
        "synthetic",
        "plan: rounds",
        "no: other-protocol",
        "1 of 2",
        "train 1.5",
        "not finished",
        "round 1 train: not-finite",
        "AKD1000",
        "no: worse",
        "[bold] is no markup",
    ):
        assert expected in shown


def test_show_as_json_is_the_whole_record(filled: str) -> None:
    shown = json.loads(call(runs, "show", "run-1", "--json", "--database", filled))
    assert shown["run"]["plan"] == example_record().run.plan
    assert shown["site_results"][0]["bytes_down"] == 2**40
    assert shown["site_results"][1]["reason"] == "not-finite"
    assert shown["versions"][0]["fit"] == {"AKD1000": {"nps": 7}}
    assert shown["events"][0]["message"] == "[bold] is no markup"


def test_latest_is_the_newest_run(filled: str) -> None:
    shown = json.loads(call(runs, "show", "latest", "--json", "--database", filled))
    assert shown["run"]["run_id"] == "run-2"


def test_the_report_is_written_into_the_runs_folder(url: str, tmp_path: Path) -> None:
    with open_history(url) as history:
        history.save_run(replace(example_run(), folder=str(tmp_path)))
    written = call(runs, "report", "run-1", "--database", url).strip()
    assert written == str(tmp_path / "report.html")
    elsewhere = tmp_path / "other.html"
    answer = call(runs, "report", "latest", "--output", str(elsewhere), "--json", "--database", url)
    assert json.loads(answer) == {"run_id": "run-1", "report": str(elsewhere)}
    for file in (Path(written), elsewhere):
        assert file.read_text().lstrip().lower().startswith("<!doctype html")


def test_an_unknown_run_is_an_expected_error(filled: str) -> None:
    with pytest.raises(RunNotFound, match="there are: run-2, run-1"):
        call(runs, "show", "none", "--database", filled)


def test_the_history_lies_in_the_output_folder(tmp_path: Path) -> None:
    out = tmp_path / "50% of ü? &#+ x"
    with open_history(default_url(out)) as history:
        history.save_run(example_run())
    assert (out / "history.db").is_file()
    assert "run-1" in call(runs, "list", "--out", str(out))
    assert "run-1" in call(runs, "list", FEDQANA_OUT=str(out))


def test_the_option_wins_over_the_environment(filled: str, tmp_path: Path) -> None:
    other = default_url(tmp_path / "other")
    assert "run-1" in call(runs, "list", "--database", filled, FEDQANA_DATABASE=other)
    with pytest.raises(DatabaseUnreachable):
        call(runs, "list", FEDQANA_DATABASE=other)


def test_upgrade_and_status(url: str) -> None:
    with pytest.raises((DatabaseUnreachable, SchemaMismatch)):
        call(runs, "list", "--database", url)
    assert "schema none -> 0002" in call(database, "upgrade", "--database", url)
    assert "nothing to do" in call(database, "upgrade", "--database", url)
    assert "schema 0002 (current)" in call(database, "status", "--database", url)
    status = json.loads(call(database, "status", "--json", "--database", url))
    assert (status["state"], status["version"], status["needed"]) == ("current", "0002", "0002")
    upgraded = json.loads(call(database, "upgrade", "--json", "--database", url))
    assert upgraded["before"] == upgraded["after"] == status
    schema.check(url)


def test_the_program_says_one_line_and_its_exit_status(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "simulation.cli", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    missing = run("runs", "list", "--out", str(tmp_path / "nothing"))
    assert missing.returncode == 42 and missing.stdout == ""
    assert len(missing.stderr.splitlines()) == 1
    away = run("runs", "list", "--database", "postgresql://fedqana:horse@127.0.0.1:1/history")
    assert away.returncode == 42 and "horse" not in away.stderr + away.stdout
    assert len(away.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_options_and_help_import_no_database() -> None:
    program = (
        "import sys, server.commands.runs, server.commands.database, server.commands.options; "
        "sys.exit(any(name in sys.modules for name in ('sqlalchemy', 'alembic', 'rich')))"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
