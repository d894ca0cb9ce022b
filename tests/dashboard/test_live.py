"""How sites and runs stand, from what the SuperLink and the runs' files say."""

import shutil
import socket
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from server.dashboard import source as source_module
from server.dashboard.live import SiteNow, UnderWay, runs_under_way, sites_now
from server.dashboard.source import Source, Superlink
from server.dashboard.words import about, ago, span
from server.history.store import open_history
from server.run_control import Control, write_control
from server.server_settings import ServerFolder
from tests.dashboard.filled import FINISHED, RUNNING, start
from tests.report.sample_record import SITES

UP = Superlink(
    nodes={"1000": "online", "1001": "offline", "1002": "registered"}, under_way=frozenset({"7"})
)
NOW = datetime(2026, 5, 4, 8, 0, tzinfo=UTC)


@pytest.fixture
def copied(filled: ServerFolder, tmp_path: Path) -> ServerFolder:
    """A copy of the filled server that a test may change."""
    shutil.copytree(filled.path, tmp_path / "copied")
    return ServerFolder(tmp_path / "copied")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-30, "just now"),
        (2, "just now"),
        (40, "40 s ago"),
        (125, "2 min ago"),
        (3 * 3600 + 5, "3 h ago"),
        (30 * 3600, "30 h ago"),
        (5 * 86_400, "5 days ago"),
        (90 * 86_400, "2026-02-03"),
    ],
)
def test_moments_are_said_in_words(seconds: float, said: str) -> None:
    assert ago(NOW - timedelta(seconds=seconds), NOW) == said


def test_spans_are_said_in_words() -> None:
    assert ago(None) == "never"
    assert [span(-1), span(59.9), span(60)] == ["0 s", "59 s", "1 min"]
    assert [about(0.2), about(12.4), about(60), about(81)] == [
        "under a minute",
        "about 12 min",
        "about 1 h",
        "about 1 h 21 min",
    ]


def now(
    folder: ServerFolder, superlink: Superlink
) -> tuple[list[UnderWay], dict[str, SiteNow], list[str]]:
    source = Source(folder)
    with source.open() as excerpts:
        runs, problems = runs_under_way(source, excerpts, superlink)
        sites = sites_now(excerpts.members.all(), superlink, runs[0] if runs else None)
    return runs, {site.name: site for site in sites}, problems


def test_a_site_that_has_not_answered_is_named_with_the_time_left(copied: ServerFolder) -> None:
    start(copied, RUNNING, 4, at=(datetime.now(UTC) - timedelta(seconds=30)).isoformat())
    [run], sites, problems = now(copied, UP)
    assert problems == []
    assert (run.run, run.badge.text, run.percent) == (RUNNING, "running", 53)
    assert run.waiting == (SITES[3],)
    assert run.left == "3 min"  # 240 s, half a minute ago
    assert run.to_the_end.startswith("about")
    assert sites[SITES[3]].part.text == "not answered yet"
    assert sites[SITES[3]].part.kind == "warn"
    assert sites[SITES[0]].part.text == "answered"
    assert sites[SITES[0]].detail == "train, round 4, 12.5 s"
    assert sites["clinic_north"].part.kind == "none"


def test_how_each_node_stands(copied: ServerFolder) -> None:
    _, sites, _ = now(copied, UP)
    assert [sites[name].node.text for name in SITES] == [
        "online",
        "offline",
        "never connected",
        "not known to the server",
    ]
    assert sites["clinic_south"].node.kind == "none"
    _, sites, _ = now(copied, Superlink("it does not answer", is_down=True))
    assert {sites[name].node.text for name in SITES} == {"unknown"}


def test_sites_that_wait_for_the_coordinator_come_first(copied: ServerFolder) -> None:
    _, sites, _ = now(copied, UP)
    assert next(iter(sites)) == "clinic_north"
    assert list(sites)[-1] == "clinic_east"


@pytest.mark.parametrize(
    ("superlink", "state"),
    [(UP, "running"), (Superlink(), "interrupted"), (Superlink("away"), "unknown")],
)
def test_the_state_of_a_run_needs_its_process(
    copied: ServerFolder, superlink: Superlink, state: str
) -> None:
    [run], _, _ = now(copied, superlink)
    assert run.badge.text == state
    assert (run.waiting != ()) is (state == "running")


def test_only_wanted_runs_are_under_way(copied: ServerFolder) -> None:
    start(copied, FINISHED, 6)  # ended between its last step and the next look at it
    assert [run.run for run in now(copied, UP)[0]] == [RUNNING]
    start(copied, "later", 1)
    assert sorted(run.run for run in now(copied, UP)[0]) == ["2026-autumn", "later"]
    write_control(copied, "later", Control(wanted="stop"))
    assert [run.run for run in now(copied, UP)[0]] == [RUNNING]


def test_a_run_that_stopped_says_why_and_goes_on(fresh: ServerFolder) -> None:
    from tests.report.sample_record import partial

    with open_history(fresh.database_url()) as history:
        history.save_run(partial().run)
        history.finish_run("run-1", "stopped", "round 2: 1 of 4 sites delivered")
    start(fresh, "run-1", 2)
    [run], _, _ = now(fresh, UP)
    assert run.badge.text == "waiting"
    assert run.reason == "round 2: 1 of 4 sites delivered; it goes on by itself"


def test_a_delivery_has_no_rounds(fresh: ServerFolder) -> None:
    start(fresh, "delivery-1", 1, phase="delivery", rounds=1, step="deploy")
    [run], _, _ = now(fresh, UP)
    assert (run.where, run.percent, run.steps) == ("delivery", None, ())


@pytest.mark.parametrize(
    ("said", "percent", "where"),
    [
        ({"step": "handshake", "round": 1}, 0, "round 1 of 6 (float)"),
        ({"step": "share", "round": 6, "done": True}, 99, "round 6 of 6 (float)"),
        ({"step": "final", "round": 6}, 99, "final test"),
        ({"step": "done", "round": 6, "done": True}, 100, "round 6 of 6 (float)"),
        ({"step": "train", "round": 2}, 17, "round 2 of 6 (float)"),
    ],
)
def test_how_far_a_run_is(
    fresh: ServerFolder, said: dict[str, Any], percent: int, where: str
) -> None:
    start(fresh, "run-1", said["round"], **said)
    [run], _, _ = now(fresh, UP)
    assert (run.percent, run.where) == (percent, where)


def test_the_superlink_is_asked_once_for_pages_at_the_same_time(
    fresh: ServerFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    ask = source_module._ask

    def counted(folder: ServerFolder) -> Superlink:
        asked.append(folder)
        return ask(folder)

    monkeypatch.setattr(source_module, "_ask", counted)
    source = Source(fresh)
    assert source.superlink() is source.superlink()
    assert len(asked) == 1
    assert source.superlink().is_down


def test_a_missing_authority_is_told(fresh: ServerFolder) -> None:
    fresh.ca.unlink()
    superlink = Source(fresh).superlink()
    assert "ca.crt" in superlink.problem and "restore it from a backup" in superlink.problem
    assert not superlink.is_down


def test_a_superlink_that_hangs_keeps_no_page_waiting(blank: ServerFolder, tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        folder = ServerFolder(tmp_path / "server")
        shutil.copytree(blank.path, folder.path)
        port = silent.getsockname()[1]
        folder.write_settings("localhost:8443", "127.0.0.1:8443", "127.0.0.1:8001", port, "")
        source = Source(folder)
        began = time.monotonic()
        for _ in range(3):
            assert "has not answered within 3 s" in source.superlink().problem
        assert time.monotonic() - began < 6
