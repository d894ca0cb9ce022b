"""What `fedqana models list` says of versions, their parents and where they are in service."""

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

from server.models import list_versions
from server.server_database import open_runs
from server.server_settings import ServerFolder
from server.setting_up import set_up
from tests.dashboard.filled import FINISHED, RUNNING, SITES, fill


def test_versions_of_a_run_with_a_later_delivery(tmp_path: Path) -> None:
    set_up(tmp_path / "srv", "localhost:8443", None, 8000, 8001, "")
    folder = ServerFolder(tmp_path / "srv")
    fill(folder)
    listed = list_versions(folder, FINISHED)
    names = [version.name for version in listed]
    assert names == [f"{FINISHED}:{n}" for n in range(1, 7)]
    assert [version.parent for version in listed] == ["", *names[:-1]]
    last = listed[-1]
    assert last.promoted and (last.switched, last.sites) == (len(SITES) - 1, len(SITES))
    every = list_versions(folder)
    assert [v for v in every if v.name.startswith(FINISHED)] == listed
    assert any(v.name.startswith(RUNNING) for v in every)
    assert not any(v.name.startswith("delivery") for v in every)


def test_the_latest_run_is_one_with_rounds(tmp_path: Path) -> None:
    set_up(tmp_path / "srv", "localhost:8443", None, 8000, 8001, "")
    folder = ServerFolder(tmp_path / "srv")
    fill(folder)
    with open_runs(folder) as history:
        now = datetime.now(UTC)
        newest = dataclasses.replace(
            history.get_run(FINISHED),
            run_id="delivery-now",
            data=f"delivery of {FINISHED}:6",
            created_at=now,
        )
        history.save_run(newest)
        assert history.get_run("latest").run_id == RUNNING
        assert history.get_run("delivery-now").is_delivery
    assert {v.name.split(":")[0] for v in list_versions(folder, "latest")} == {RUNNING}
