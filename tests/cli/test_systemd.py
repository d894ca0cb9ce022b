"""Unit files for both sides, as systemd itself reads them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import common
from common.errors import SettingsError
from common.systemd import Unit, unit_text
from edge_client.client_folder import ClientFolder
from edge_client.start import processes as client_processes
from server.server_settings import ServerFolder
from server.sites import invite
from server.start import processes as server_processes
from tests.cli.command import fedqana
from tests.edge_client.checked_home import make_home, set_up_server, set_value

MOST_EXPOSURE = 2.5
"""Of 10, as `systemd-analyze security` rates it; 9 and more is a service without any of this."""


@pytest.fixture
def server(tmp_path: Path) -> ServerFolder:
    return set_up_server(tmp_path / "a server, 50 % of $it")


@pytest.fixture
def home(server: ServerFolder, tmp_path: Path) -> Path:
    invitation = invite(server.path, "a", tmp_path / "a.json")
    return make_home(tmp_path / "a home, 50 % of $it", invitation)


def systemd_analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments], capture_output=True, text=True, timeout=60
    )


def values(text: str) -> dict[str, str]:
    """The last value of each key."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line and line[0] != "#")
    return dict(pairs)


def printed(*arguments: str | Path) -> dict[str, str]:
    result = fedqana(*arguments)
    assert result.returncode == 0, result.stderr
    return values(result.stdout)


def test_systemd_accepts_them(server: ServerFolder, home: Path, tmp_path: Path) -> None:
    for side, option, folder in (("client", "--home", home), ("server", "--server", server.path)):
        file = tmp_path / f"fedqana-{side}.service"
        result = fedqana(side, "systemd", option, folder, "--out", file)
        assert result.returncode == 0 and f"enable --now fedqana-{side}" in result.stdout
        verified = systemd_analyze("verify", file)
        assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")
        threshold = f"--threshold={10 * MOST_EXPOSURE:.0f}"
        rated = systemd_analyze("security", "--offline=true", threshold, file)
        assert rated.returncode == 0, rated.stdout + rated.stderr


def test_the_command_is_that_of_this_installation(home: Path) -> None:
    start = printed("client", "systemd", "--home", home)["ExecStart"]
    quoted = str(home).replace("%", "%%").replace("$", "$$")
    assert start.endswith(f' client start --home "{quoted}"')
    program = Path(start.split()[0])
    assert program.is_absolute() and os.access(program, os.X_OK)


def test_stopping_gets_the_time_that_the_supervisor_needs(server: ServerFolder, home: Path) -> None:
    set_value(home, "folder", '"inbox"')
    client = printed("client", "systemd", "--home", home)
    needed = sum(process.stop_seconds for process in client_processes(ClientFolder(home)))
    assert needed + 60 > float(client["TimeoutStopSec"]) > needed
    found = printed("server", "systemd", "--server", server.path)
    needed = sum(process.stop_seconds for process in server_processes(server))
    assert needed + 60 > float(found["TimeoutStopSec"]) > needed
    assert found["KillMode"] == client["KillMode"] == "mixed"


def test_nothing_else_can_be_written(home: Path, tmp_path: Path) -> None:
    found = printed("client", "systemd", "--home", home)
    quoted = '"' + str(home).replace("%", "%%") + '"'
    assert found["ProtectSystem"] == "strict" and found["ReadWritePaths"] == quoted
    assert found["DevicePolicy"] == "closed"
    set_value(home, "folder", f'"{tmp_path / "inbox"}"')
    set_value(home, "address", '"unix:/run/fedqana/service.sock"')
    found = printed("client", "systemd", "--home", home)
    assert found["ReadWritePaths"] == f"{quoted} {tmp_path / 'inbox'} /run/fedqana"


def test_what_a_servers_settings_need(server: ServerFolder, tmp_path: Path) -> None:
    path = server.path / "fedqana.toml"
    found = printed("server", "systemd", "--server", server.path)
    assert found["CapabilityBoundingSet"] == "" and "AmbientCapabilities" not in found
    assert found["PrivateDevices"] == "yes"
    text = path.read_text().replace("0.0.0.0:" + server.settings().address[10:], "0.0.0.0:443")
    elsewhere = tmp_path / "elsewhere" / "history.db"
    path.write_text(text.replace('database = ""', f'database = "sqlite:///{elsewhere}"'))
    found = printed("server", "systemd", "--server", server.path)
    assert found["AmbientCapabilities"] == "CAP_NET_BIND_SERVICE"
    assert found["ReadWritePaths"].endswith(f'" {elsewhere.parent}')
    assert "postgresql" not in found["After"]
    url = "postgresql+psycopg://fedqana@localhost/fedqana"
    path.write_text(path.read_text().replace(f"sqlite:///{elsewhere}", url))
    found = printed("server", "systemd", "--server", server.path)
    assert found["After"].endswith(" postgresql.service")
    assert url not in fedqana("server", "systemd", "--server", server.path).stdout


def test_the_user(home: Path) -> None:
    unknown = fedqana("client", "systemd", "--home", home, "--user", "no-such-user")
    assert unknown.returncode == 60 and "useradd" in unknown.stderr
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder to another user")
    other = fedqana("client", "systemd", "--home", home, "--user", "nobody")
    assert other.returncode == 60 and "chown -R nobody" in other.stderr
    as_root = fedqana("client", "systemd", "--home", home, "--json")
    assert json.loads(as_root.stdout)["user"] == "root" and "runs as root" in as_root.stderr
    os.chown(home, 65534, -1)
    found = fedqana("client", "systemd", "--home", home)
    assert values(found.stdout)["User"] == "nobody" and found.stderr == ""


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    for arguments in (("client", "systemd", "--home"), ("server", "systemd", "--server")):
        result = fedqana(*arguments, tmp_path / "nowhere")
        assert result.returncode == 10 and len(result.stderr.splitlines()) == 1


def test_an_output_that_cannot_be_written(home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "fedqana.service"
    assert fedqana("client", "systemd", "--home", home, "--out", out).returncode == 40


def test_folders_of_people_and_temporary_ones_are_hidden_where_they_are_not_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unit(folder: str) -> dict[str, str]:
        return values(unit_text(Unit("u", "u", ("client",), Path(folder), "fedqana", 20.0)))

    monkeypatch.setattr(sys, "prefix", "/opt/fedqana")
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    monkeypatch.setattr(common, "__file__", "/opt/fedqana/common/__init__.py")
    found = unit("/srv/fedqana")
    assert (found["ProtectHome"], found["PrivateTmp"]) == ("yes", "yes")
    assert unit("/home/fedqana/home")["ProtectHome"] == "read-only"
    assert unit("/var/tmp/home")["PrivateTmp"] == "no"
    monkeypatch.setattr(sys, "base_prefix", "/root/python")
    assert unit("/srv/fedqana")["ProtectHome"] == "read-only"


@pytest.mark.parametrize("name", ["two\nlines", "ends with a backslash\\", "tab\there"])
def test_names_that_a_unit_file_cannot_hold(name: str) -> None:
    with pytest.raises(SettingsError, match="plain name"):
        unit_text(Unit("u", "u", (), Path("/srv") / name, "fedqana", 20.0))
