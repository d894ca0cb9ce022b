"""The coordinator's server: its folder and its settings.

fedqana.toml        settings, commented
tls/                CA, server certificate and their keys
keys/bundle.key     what model bundles are signed with
keys/superexec.secret   between Flower's processes on this machine
flower/             Flower's own state and log of runs
runs/               one folder per run: plan, checkpoint, model versions
history.db          runs, members, audit trail (unless settings name another database)
logs/               server.log as JSON lines
nginx.conf          for those who put nginx in front
"""

import json
import os
import pwd
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from common.errors import SettingsError
from common.files import write_atomically
from common.settings_file import read_settings

SETTINGS = "fedqana.toml"
SERVER_LOCK = "server.lock"
FOLDER_VARIABLE = "FEDQANA_SERVER"

_TEMPLATE = """\
# Settings of this FedQANA server; see docs/coordinator.md. Restart the server after a change.

# What sites reach: HOST:PORT. It is in every enrolment file and in the server's certificate.
address = {address}

[front]
# "embedded": this server ends TLS itself. "proxy": a proxy such as nginx does (nginx.conf here);
# the server then only listens on loopback.
kind = "embedded"
# Where the embedded front listens.
listen = {listen}
# Where a proxy passes /fedqana/ to (loopback).
enrolment = {enrolment}

[superlink]
# Flower's SuperLink, on loopback: whoever reaches it may start runs.
port = {superlink}

[history]
# URL of the database; "" is the SQLite file history.db in this folder.
database = {database}

[rounds]
# How often a run that stopped (a crash, too few sites that may train now) is resumed by itself
# without a finished step in between; pauses grow from 10 s to half an hour, so 60 is a day.
resume_attempts = 60
# Whether two runs may be under way at once.
several_at_once = false

[sites]
# How long an invitation holds, in hours.
invitation_hours = 72.0
"""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FrontSettings(_Part):
    """What sites reach."""

    kind: Literal["embedded", "proxy"] = "embedded"
    listen: str
    enrolment: str


class SuperlinkSettings(_Part):
    """Flower's SuperLink."""

    port: int = Field(ge=1, le=65535)


class HistorySettings(_Part):
    """Where the history is."""

    database: str = ""


class RoundsSettings(_Part):
    """How runs are kept going."""

    resume_attempts: int = Field(default=60, ge=0)
    several_at_once: bool = False


class SitesSettings(_Part):
    """How sites come to take part."""

    invitation_hours: float = Field(default=72.0, gt=0)


class ServerSettings(_Part):
    """All of ``fedqana.toml``."""

    address: str
    front: FrontSettings
    superlink: SuperlinkSettings
    history: HistorySettings = HistorySettings()
    rounds: RoundsSettings = RoundsSettings()
    sites: SitesSettings = SitesSettings()


@dataclass(frozen=True)
class ServerFolder:
    """Paths within a server's folder."""

    path: Path

    @property
    def tls(self) -> Path:
        """Certificates and their keys."""
        return self.path / "tls"

    @property
    def ca(self) -> Path:
        """The CA's certificate."""
        return self.tls / "ca.crt"

    @property
    def bundle_key(self) -> Path:
        """What bundles are signed with."""
        return self.path / "keys" / "bundle.key"

    @property
    def superexec_secret(self) -> Path:
        """What Flower's SuperExec shows to its SuperLink."""
        return self.path / "keys" / "superexec.secret"

    @property
    def flower(self) -> Path:
        """FLWR_HOME of this server's Flower processes."""
        return self.path / "flower"

    @property
    def runs(self) -> Path:
        """Folders of runs."""
        return self.path / "runs"

    @property
    def logs(self) -> Path:
        """Log files."""
        return self.path / "logs"

    def write_settings(
        self, address: str, listen: str, enrolment: str, superlink: int, database: str
    ) -> None:
        """Write the commented settings file of a new server."""
        quoted = [json.dumps(text) for text in (address, listen, enrolment, database)]
        text = _TEMPLATE.format(
            address=quoted[0],
            listen=quoted[1],
            enrolment=quoted[2],
            database=quoted[3],
            superlink=superlink,
        )
        write_atomically(self.path / SETTINGS, text.encode(), mode=0o600)

    def settings(self) -> ServerSettings:
        """The settings; DataNotFound where this is no server's folder, SettingsError by key."""
        path = self.path / SETTINGS
        absent = (
            f"{self.path} is not a server's folder (there is no {SETTINGS}); make one with "
            "'fedqana server init DIR --address HOST:PORT' or name it with --server"
        )
        self._require_same_user()
        return read_settings(path, ServerSettings, absent)

    def _require_same_user(self) -> None:
        """SettingsError for another user than the server's, whose lock tells who that is.

        The server could not read what another one writes.
        """
        try:
            owner = (self.path / SERVER_LOCK).stat().st_uid
        except OSError:  # it was never started
            return
        if owner == os.geteuid():
            return
        try:
            name = pwd.getpwuid(owner).pw_name
        except KeyError:
            name = f"#{owner}"
        raise SettingsError(
            f"the server of {self.path} runs as user {name}; run this as that user: sudo -u {name} "
            "fedqana ..."
        )

    def database_url(self) -> str:
        """URL of the history's database."""
        from server.history.engine import default_url

        return self.settings().history.database or default_url(self.path)

    def superlink_address(self) -> str:
        """Where this machine reaches the SuperLink."""
        return f"127.0.0.1:{self.settings().superlink.port}"


def folder_of_this_process() -> ServerFolder:
    """The folder that `fedqana server start` gave to its processes."""
    return ServerFolder(Path(os.environ[FOLDER_VARIABLE]))


def split_address(text: str, option: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``; IPv6 hosts in brackets. SettingsError names the option."""
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    usable = re.fullmatch(r"[A-Za-z0-9.:-]+", host) is not None and "//" not in text
    if not usable or not (port.isascii() and port.isdecimal()) or not 1 <= int(port) <= 65535:
        raise SettingsError(f"{option} {text}: give HOST:PORT, e.g. fedqana.example.org:8443")
    return host, int(port)
