"""The dashboard beside a real server: SuperLink, a site that joined and was approved."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.keys import new_site_key, public_part
from server.history.membership import open_membership
from server.server_settings import ServerFolder
from server.setting_up import set_up
from server.sites import approve, revoke
from tests.cli.command import ROOT
from tests.dashboard.serving import Dashboard, dashboard, free_port
from tests.dashboard.test_pages import words


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[ServerFolder, subprocess.Popen[bytes]]]:
    """`fedqana server start` on ports of its own."""
    listen = f"127.0.0.1:{free_port()}"
    set_up(tmp_path / "server", listen, listen, free_port(), free_port(), "")
    folder = ServerFolder((tmp_path / "server").resolve())
    process = subprocess.Popen(
        [sys.executable, "-m", "simulation.cli", "server", "start", "--server", str(folder.path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    yield folder, process
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    process.wait(60)


def eventually(shown: Dashboard, said: Callable[[str], bool]) -> str:
    give_up = time.monotonic() + 60
    while True:
        text = words(shown.get("/").text)
        if said(text):
            return text
        assert time.monotonic() < give_up, text
        time.sleep(0.5)


def test_the_server_comes_a_site_joins_and_the_server_goes(
    server: tuple[ServerFolder, subprocess.Popen[bytes]],
) -> None:
    folder, process = server
    with dashboard(folder) as shown:
        eventually(shown, lambda text: "server up" in text)
        with open_membership(folder.database_url()) as members:
            _, code = members.invite("clinic", 72)
            members.join("clinic", code, public_part(new_site_key()), {})
        assert "clinic waits for approval" in words(shown.get("/").text)
        approve(folder.path, "clinic")
        text = eventually(shown, lambda text: "clinic takes part never connected" in text)
        assert "sites online 0 of 1" in text
        assert "Nothing. Start a run with fedqana rounds start" in text
        revoke(folder.path, "clinic")
        eventually(shown, lambda text: "clinic revoked" in text)
        assert "site revoked line 4 clinic coordinator" in words(shown.get("/audit").text)
        process.send_signal(signal.SIGTERM)
        text = eventually(shown, lambda text: "server down" in text)
        assert "fedqana server start --server" in text
