"""`fedqana client check` as people and scripts call it."""

import json
from pathlib import Path

import pytest

from server.sites import invite
from tests.cli.command import fedqana
from tests.edge_client.checked_home import (
    copy_of,
    front,
    install_version,
    joined_home,
    make_home,
    set_up_server,
)


def test_a_site_that_is_ready_and_one_that_is_not(tmp_path: Path) -> None:
    server = set_up_server(tmp_path / "srv")
    with front(server):
        home = joined_home(server, tmp_path / "home")
        install_version(home)
        result = fedqana("client", "check", "--home", home)
        assert result.returncode == 0, result.stdout
        assert result.stderr == "" and "failed" not in result.stdout
        broken = copy_of(home, tmp_path / "broken")
        broken.chmod(0o755)
        result = fedqana("client", "check", "--home", broken, "--json")
    assert result.returncode == 54
    found = json.loads(result.stdout)
    assert found["passed"] is False
    standings = {line["check"]: line["standing"] for line in found["checks"]}
    assert standings["permissions"] == "failed" and standings["membership"] == "ok"
    assert result.stderr.startswith("fedqana: 1 of 23 checks failed (permissions)")


def test_a_join_that_was_cut_off(tmp_path: Path) -> None:
    server = set_up_server(tmp_path / "srv")
    home = make_home(tmp_path / "home", invite(server.path, "a", tmp_path / "a.json"))
    (home / "client.toml").unlink()
    result = fedqana("client", "check", "--home", home)
    assert result.returncode == 54
    lines = {line[13:25].strip(): line for line in result.stdout.splitlines()}
    assert lines["settings"].startswith("failed") and "client join" in lines["settings"]
    assert lines["cases"].startswith("ok")


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_a_folder_that_is_no_home(tmp_path: Path, folder: str) -> None:
    result = fedqana("client", "check", "--home", tmp_path / folder)
    assert result.returncode == 10 and len(result.stderr.splitlines()) == 1
    assert "--home" in result.stderr and list(tmp_path.iterdir()) == []
