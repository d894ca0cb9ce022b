"""A joined site's home, a real server's front that it reaches, and what the checks say of them."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from common.classes import ClassMap
from common.data.cases import Cases
from common.enrolment import EnrolmentFile
from common.files import write_atomically
from common.keys import new_site_key, write_secret
from edge_client.checks.findings import Outcome
from edge_client.checks.running import check_groups, outcome_of
from edge_client.client_folder import ClientFolder
from edge_client.coordinator import Coordinator
from edge_client.policy import POLICY, POLICY_TEMPLATE
from edge_client.service import EdgeClient, EdgeSettings
from edge_client.site import SiteData, SiteFolder
from server.server_database import open_members
from server.server_settings import FOLDER_VARIABLE, ServerFolder
from server.setting_up import set_up
from server.sites import invite
from tests.cli.command import ROOT
from tests.edge_client.cases import CLASSES, arriving, some_cases
from tests.edge_client.test_service import STORE, install


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def set_up_server(path: Path) -> ServerFolder:
    """A new server's folder; its front will listen on all addresses of this machine."""
    port = free_port()
    set_up(path, f"localhost:{port}", f"0.0.0.0:{port}", free_port(), free_port(), "")
    return ServerFolder(path)


@contextmanager
def front(folder: ServerFolder) -> Iterator[None]:
    """The server's front in a process of its own, listening."""
    process = subprocess.Popen(
        [sys.executable, "-m", "server.front"],
        cwd=ROOT,
        env={**os.environ, FOLDER_VARIABLE: str(folder.path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        port, give_up = int(folder.settings().address.rpartition(":")[2]), time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1.0).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < give_up
                time.sleep(0.1)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def make_home(home: Path, invitation: EnrolmentFile) -> Path:
    """A home as `fedqana client join` leaves it, without the request to the server."""
    home.mkdir(mode=0o700, parents=True)
    nothing = some_cases(1, seed=1).subset(np.zeros(0, np.int64))
    site = SiteData(
        name=invitation.site,
        classes=ClassMap(CLASSES),
        train=some_cases(8, seed=31),
        validation=some_cases(2, seed=32),
        test=some_cases(2, seed=33),
        arrivals=Cases(nothing.images, nothing.labels, (), ()),
        arrival_rounds=np.zeros(0, np.int64),
    )
    SiteFolder(home).write(site)
    folder = ClientFolder(home)
    write_secret(folder.key, new_site_key())
    write_secret(folder.runner_secret, secrets.token_hex(32).encode())
    write_atomically(folder.ca, invitation.ca.encode())
    write_atomically(home / POLICY, POLICY_TEMPLATE.encode())
    folder.write_config(invitation.site, invitation.address, invitation.seal, free_port())
    return home


def join(home: Path, invitation: EnrolmentFile) -> None:
    """Register the home's key, over the network."""
    folder = ClientFolder(home)
    coordinator = Coordinator(invitation.address, folder.ca)
    try:
        coordinator.join(invitation.site, invitation.code, folder.key.read_bytes(), {})
    finally:
        coordinator.close()


def joined_home(server: ServerFolder, home: Path, state: str = "approved") -> Path:
    """The home of a site that is ``state``: pending, approved or revoked. The front must run."""
    name = f"{home.parent.name}-{home.name}"
    invitation = invite(server.path, name, home.parent / f"{home.name}.json")
    make_home(home, invitation)
    join(home, invitation)
    with open_members(server) as members:
        if state in ("approved", "revoked"):
            members.approve(name, str(secrets.randbelow(2**60)), members.get(name).public_key)
        if state == "revoked":
            members.revoke(name)
    return home


def install_version(home: Path) -> None:
    """Put version 1 into service, and let it learn a case."""
    client = EdgeClient(home / "state", EdgeSettings(tolerance=1.0))
    install(client, 1, STORE)
    for case in arriving(2, seed=60, round_number=1):
        client.learn(case)
    client.save()


def copy_of(home: Path, target: Path) -> Path:
    """A copy to break something in; the folder itself keeps its permissions."""
    shutil.copytree(home, target)
    return target


def outcomes(home: Path, group: str, data: Path | None = None) -> dict[str, Outcome]:
    """What the checks beside the one called ``group`` say, by name, in their order."""
    found = next(g for g in check_groups(home, data) if group in {check.name for check in g})
    return {check.name: outcome_of(check) for check in found}


def outcome(home: Path, name: str) -> Outcome:
    """What one check says, after those that it builds on."""
    checks = next(g for g in check_groups(home) if name in {check.name for check in g})
    for check in checks:
        if check.name == name:
            return outcome_of(check)
        if check.name == "cases":
            outcome_of(check)
    raise AssertionError(name)


def set_value(home: Path, key: str, value: str) -> None:
    """Replace one value of client.toml."""
    path = home / "client.toml"
    lines = path.read_text().splitlines()
    assert sum(line.startswith(f"{key} = ") for line in lines) == 1
    lines = [f"{key} = {value}" if line.startswith(f"{key} = ") else line for line in lines]
    path.write_text("\n".join(lines) + "\n")
