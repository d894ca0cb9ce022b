"""Sites that never answer, too few that do, and a history that goes away in the middle."""

import time
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, Message

from common.errors import DatabaseUnreachable, QuorumMissed
from common.messages import Answer
from edge_client.flower import app as deployed
from server.history.engine import Database
from tests.support.hostile import HostileSites, run_with
from tests.support.tiny_run import (
    create_tiny,
    differences,
    fingerprint,
    record_of,
    run_tiny,
    state_of,
)

SILENT = 3
"""Node of site-2."""


def _to(*nodes: int, kind: str = "train") -> "object":
    def drops(message: Message) -> bool:
        return message.metadata.message_type == kind and message.metadata.dst_node_id in nodes

    return drops


def test_a_silent_site_is_named_and_the_deadline_kept(tmp_path: Path) -> None:
    deadline = 12.0
    folder = create_tiny(tmp_path, qat_rounds=0, deadline=deadline)
    run_with(folder, drops=_to(SILENT))  # type: ignore[arg-type]
    record = record_of(folder)
    refused = [(r.site, r.step, r.reason) for r in record.site_results if not r.accepted]
    assert refused == [("site-2", "train", f"missing: no reply within {deadline:.0f} s")]
    assert record.run.state == "finished" and record.rounds[0].sites_aggregated == 3
    assert deadline <= record.rounds[0].seconds["train"] < deadline + 3


def test_below_quorum_one_retry_then_exit_31_and_resume(tmp_path: Path) -> None:
    folder = create_tiny(tmp_path, qat_rounds=0, quorum=0.75)
    asked: list[int] = []

    def broken(message: Message, context: Context) -> Message:
        if message.metadata.message_type == "train" and context.node_id in (3, 4):
            asked.append(context.node_id)
            raise RuntimeError("broken")
        return deployed(message, context)

    with pytest.raises(QuorumMissed, match="missing: site-2, site-3") as caught:
        run_with(folder, broken)
    assert caught.value.exit_status == 31
    assert sorted(asked) == [3, 3, 4, 4]
    record = record_of(folder)
    assert record.run.state == "stopped" and "2 of 4 sites" in record.run.reason
    assert sum(e.kind == "quorum-missed" for e in record.events) == 2
    assert state_of(folder) is None

    run_with(folder)
    undisturbed = run_tiny(tmp_path / "other", qat_rounds=0, quorum=0.75)
    assert differences(fingerprint(folder), fingerprint(undisturbed)) == []


def test_a_quorum_of_all_is_missed_by_one_hostile_site(tmp_path: Path) -> None:
    def poison(answer: Answer, _: int) -> Answer:
        bad = {n: np.full_like(a, np.nan) for n, a in answer.arrays.items()}
        return Answer(answer.reply, arrays=bad)

    folder = create_tiny(tmp_path, qat_rounds=0, quorum=1.0)
    with pytest.raises(QuorumMissed, match="missing: site-2;"):
        run_with(folder, HostileSites({("train", "site-2"): poison}))


def test_the_history_goes_away_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database's file becomes a folder while round 1's evaluation is under way."""
    folder = create_tiny(tmp_path, qat_rounds=0)
    database, away = tmp_path / "history.db", tmp_path / "away.db"
    gone = False

    def unplug(message: Message, context: Context) -> Message:
        nonlocal gone
        if message.metadata.message_type == "evaluate" and not gone:
            gone = True
            for file in tmp_path.glob("history.db-*"):
                file.rename(tmp_path / file.name.replace("history.db", "away.db"))
            database.rename(away)
            database.mkdir()
            # What a server's restart does to pooled connections; a file's would live on.
            for pooled in _open_databases:
                pooled.close()
        return deployed(message, context)

    _open_databases: list[Database] = []
    original = Database.__init__

    def remember(self: Database, url: str) -> None:
        original(self, url)
        _open_databases.append(self)

    monkeypatch.setattr(Database, "__init__", remember)
    started = time.monotonic()
    with pytest.raises(DatabaseUnreachable) as caught:
        run_with(folder, unplug)
    assert caught.value.exit_status == 42 and time.monotonic() - started < 60
    state = state_of(folder)
    assert state is not None and (state.round, state.step) == (1, "evaluate")

    database.rmdir()
    for file in tmp_path.glob("away.db*"):
        file.rename(tmp_path / file.name.replace("away.db", "history.db"))
    run_with(folder)
    undisturbed = run_tiny(tmp_path / "other", qat_rounds=0)
    assert differences(fingerprint(folder), fingerprint(undisturbed)) == []
