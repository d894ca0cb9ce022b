"""The way to the server, with real servers and real certificates."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.keys import fingerprint, public_part
from common.messages import PROTOCOL
from edge_client.checks import network
from edge_client.checks.findings import Outcome
from edge_client.client_folder import ClientFolder
from server.certificates import make_authority, make_server_certificate
from server.server_settings import ServerFolder
from tests.cli.command import fedqana
from tests.edge_client.checked_home import (
    copy_of,
    free_port,
    front,
    joined_home,
    outcomes,
    set_up_server,
    set_value,
)

STEPS = ["name", "connection", "certificate", "server", "versions", "clock", "membership"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerFolder]:
    folder = set_up_server(tmp_path_factory.mktemp("server") / "srv")
    with front(folder):
        yield folder


@pytest.fixture(scope="module")
def approved(server: ServerFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return joined_home(server, tmp_path_factory.mktemp("approved") / "home")


def ask(home: Path) -> dict[str, Outcome]:
    found = outcomes(home, "name")
    assert list(found) == STEPS
    return found


def stops_at(home: Path, step: str, *words: str) -> None:
    """Steps before ``step`` are ok, it failed, those after it say why they were left out."""
    found = ask(home)
    assert found[step].standing == "failed", found
    assert all(word in found[step].text for word in words), found[step].text
    for name in STEPS[: STEPS.index(step)]:
        assert found[name].standing == "ok", found
    for name in STEPS[STEPS.index(step) + 1 :]:
        assert found[name].standing == "not checked" and step in found[name].text, found


def test_all_is_well(approved: Path) -> None:
    found = ask(approved)
    assert {outcome.standing for outcome in found.values()} == {"ok"}, found
    assert "approved as" in found["membership"].text and "until 20" in found["certificate"].text


def test_the_limits_of_the_clock_are_flowers() -> None:
    from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE

    assert network.MOST_AHEAD == SYSTEM_TIME_TOLERANCE
    assert network.MOST_BEHIND <= TIMESTAMP_TOLERANCE


def test_an_unknown_name(approved: Path, tmp_path: Path) -> None:
    home = copy_of(approved, tmp_path / "home")
    set_value(home, "server", '"no-such-host.invalid:443"')
    stops_at(home, "name", "no-such-host.invalid", "DNS")


def test_a_refused_port(approved: Path, tmp_path: Path) -> None:
    home = copy_of(approved, tmp_path / "home")
    set_value(home, "server", f'"localhost:{free_port()}"')
    stops_at(home, "connection", "nothing listens there")


def test_a_server_that_says_nothing(approved: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        home = copy_of(approved, tmp_path / "home")
        set_value(home, "server", f'"127.0.0.1:{silent.getsockname()[1]}"')
        started = time.monotonic()
        stops_at(home, "certificate", "no answer in time", "firewall")
        assert time.monotonic() - started < 10


def test_a_server_without_tls(approved: Path, tmp_path: Path) -> None:
    with subprocess.Popen(
        ["python3", "-u", "-m", "http.server", "--bind", "127.0.0.1", str(port := free_port())],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as plain:
        try:
            assert plain.stdout is not None and plain.stdout.readline()
            home = copy_of(approved, tmp_path / "home")
            set_value(home, "server", f'"127.0.0.1:{port}"')
            stops_at(home, "certificate", "127.0.0.1", "TLS")
        finally:
            plain.kill()


def test_another_authority(approved: Path, tmp_path: Path) -> None:
    home = copy_of(approved, tmp_path / "home")
    make_authority(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "ca.crt", ClientFolder(home).ca)
    stops_at(home, "certificate", "not of the coordinator's authority", "new enrolment file")


def test_a_certificate_for_another_name(approved: Path, tmp_path: Path) -> None:
    home = copy_of(approved, tmp_path / "home")
    port = ClientFolder(home).config().server.rpartition(":")[2]
    set_value(home, "server", f'"127.0.0.2:{port}"')
    stops_at(home, "certificate", "another address", "enrolment file")


@pytest.mark.parametrize("days", [0, 12])
def test_a_certificate_at_its_end(
    server: ServerFolder, approved: Path, tmp_path: Path, days: int
) -> None:
    old = ServerFolder(tmp_path / "srv")
    shutil.copytree(server.path, old.path)
    make_server_certificate(old.tls, "localhost", days=days)
    port = free_port()
    settings = (old.path / "fedqana.toml").read_text()
    used = server.settings().address.rpartition(":")[2]
    (old.path / "fedqana.toml").write_text(settings.replace(f":{used}", f":{port}"))
    home = copy_of(approved, tmp_path / "home")
    set_value(home, "server", f'"localhost:{port}"')
    with front(old):
        if days == 0:
            stops_at(home, "certificate", "has expired", "fedqana server renew", "clock")
            return
        found = ask(home)
    ends = datetime.now(UTC) + timedelta(days=days)
    assert found["certificate"].standing == "warning"
    assert f"{ends:%Y-%m-%d}" in found["certificate"].text
    assert found["membership"].standing == "ok"


def test_a_pending_site_shows_its_fingerprint(server: ServerFolder, tmp_path: Path) -> None:
    home = joined_home(server, tmp_path / "home", "pending")
    found = ask(home)["membership"]
    key = fingerprint(public_part(ClientFolder(home).key.read_bytes()))
    assert found.standing == "failed" and key in found.text and "approval" in found.text


def test_a_revoked_site(server: ServerFolder, tmp_path: Path) -> None:
    found = ask(joined_home(server, tmp_path / "home", "revoked"))["membership"]
    assert found.standing == "failed" and "took this site's membership away" in found.text


def test_a_site_that_nobody_knows(approved: Path, tmp_path: Path) -> None:
    home = copy_of(approved, tmp_path / "home")
    set_value(home, "site", '"stranger"')
    found = ask(home)["membership"]
    assert found.standing == "failed" and "knows no site 'stranger'" in found.text


def test_without_its_key_a_site_cannot_ask(approved: Path, tmp_path: Path) -> None:
    home = copy_of(approved, tmp_path / "home")
    ClientFolder(home).key.unlink()
    found = ask(home)["membership"]
    assert found.standing == "not checked" and "key" in found.text


@pytest.mark.parametrize(
    ("seconds", "standing"),
    [(3.5, "warning"), (20, "failed"), (-60, "warning"), (-400, "failed"), (0.5, "ok")],
)
def test_small_errors_of_the_clock(
    approved: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, standing: str
) -> None:
    off = timedelta(seconds=seconds)
    monkeypatch.setattr(
        network,
        "datetime",
        SimpleNamespace(now=lambda zone: _now(zone) + off, fromtimestamp=datetime.fromtimestamp),
    )
    found = ask(approved)
    assert found["clock"].standing == standing, found["clock"]
    if standing != "ok":
        assert ("ahead" if seconds > 0 else "behind") in found["clock"].text
    refused = standing == "failed"
    assert found["membership"].standing == ("not checked" if refused else "ok")


def _now(zone: object) -> datetime:
    return datetime.now(UTC)


@pytest.mark.parametrize("shift", ["+2d", "-2d"])
def test_a_clock_that_is_two_days_off(approved: Path, shift: str) -> None:
    faketime = shutil.which("faketime")
    if faketime is None:
        pytest.skip("faketime is not installed")
    environment = ("env", "NO_FAKE_STAT=1")
    shifted = (*environment, faketime, "-m", "-f", shift)
    result = fedqana("client", "check", "--home", approved, before=shifted)
    assert result.returncode == 54, result.stderr
    lines = {line[13:25].strip(): line for line in result.stdout.splitlines()}
    assert lines["clock"].startswith("failed") and "timesyncd" in lines["clock"]
    assert "2 days" in lines["clock"]
    if shift == "-2d":  # the certificate is from the future then
        assert lines["certificate"].startswith("failed") and "clock" in lines["certificate"]
        assert "behind" in lines["clock"]
    else:
        assert lines["certificate"].startswith("ok") and "ahead" in lines["clock"]
        assert lines["membership"].startswith("not checked")


def test_versions_of_both_sides(approved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as older:
        older.setattr(network, "PROTOCOL", PROTOCOL - 1)
        found = ask(approved)
    assert found["versions"].standing == "failed" and "update this site" in found["versions"].text
    assert found["membership"].standing == "ok"
    with monkeypatch.context() as newer:
        newer.setattr(network, "PROTOCOL", PROTOCOL + 1)
        assert "update the server" in ask(approved)["versions"].text
    major, minor, *_ = version("flwr").split(".")
    with monkeypatch.context() as other:
        other.setattr(network, "version", lambda name: f"{major}.{int(minor) + 1}.0")
        assert ask(approved)["versions"].standing == "failed"
        other.setattr(network, "version", lambda name: f"{major}.{minor}.99")
        assert ask(approved)["versions"].standing == "warning"


def test_without_a_way_out_the_rest_is_checked(approved: Path, tmp_path: Path) -> None:
    home = copy_of(approved, tmp_path / "home")
    set_value(home, "server", '"192.0.2.1:443"')  # of no machine (RFC 5737)
    started = time.monotonic()
    result = fedqana("client", "check", "--home", home)
    assert time.monotonic() - started < 15 + 5 * (os.getloadavg()[0] > 4)
    assert result.returncode == 54 and len(result.stderr.splitlines()) == 1
    lines = {line[13:25].strip(): line for line in result.stdout.splitlines()}
    assert lines["connection"].startswith("failed") and "192.0.2.1" in lines["connection"]
    assert lines["membership"].startswith("not checked")
    for name in ("settings", "keys", "cases", "audit log", "disk", "akida"):
        assert lines[name].startswith("ok"), lines[name]
