"""An edge client's home at a hospital: its settings, its key, its data and all it has learned.

client.toml         who it is and whom it reaches, commented
policy.toml         what the hospital allows
audit.jsonl         what has left the site, append-only
keys/site.key       the site's private key; it never leaves
keys/ca.crt         the coordinator's certificate authority
keys/runner.secret  between Flower's node and the edge client on this machine
site.json, *.npz    the site's cases
state/              journal of learned cases, model versions
logs/client.log     JSON lines
"""

import json
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from common.files import write_atomically
from common.settings_file import read_settings

CONFIG = "client.toml"

_TEMPLATE = """\
# Settings of this FedQANA edge client; see docs/hospital.md. Restart the client after a change.

# The site's name and the coordinator's server, from the enrolment file.
site = {site}
server = {server}
# Public key of the coordinator: only model versions signed with it are installed.
seal = {seal}

[service]
# The local service: "" is a Unix socket in this folder; or "127.0.0.1:PORT"; any other host needs
# mutual TLS.
address = ""
# Paths for mutual TLS, relative to this folder.
certificate = ""
key = ""
client_ca = ""

[flower]
# Port on loopback between Flower's node and the edge client.
port = {port}

[watch]
# A folder in which CSV files with confirmed cases are put; "" for none (docs/watched-folder.md).
folder = ""
# Seconds between two looks.
interval = 10.0
"""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ServicePart(_Part):
    """Where the local service listens."""

    address: str = ""
    certificate: str = ""
    key: str = ""
    client_ca: str = ""


class FlowerPart(_Part):
    """Flower's node on this machine."""

    port: int = Field(default=9094, ge=1, le=65535)


class WatchPart(_Part):
    """The watched folder."""

    folder: str = ""
    interval: float = Field(default=10.0, gt=0)


class ClientConfig(_Part):
    """All of ``client.toml``."""

    site: str
    server: str
    seal: str
    service: ServicePart = ServicePart()
    flower: FlowerPart = FlowerPart()
    watch: WatchPart = WatchPart()


class ClientFolder:
    """Paths and settings of an edge client's home."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def key(self) -> Path:
        """The site's private key."""
        return self.path / "keys" / "site.key"

    @property
    def ca(self) -> Path:
        """The coordinator's certificate authority."""
        return self.path / "keys" / "ca.crt"

    @property
    def runner_secret(self) -> Path:
        """What the edge client shows to Flower's node."""
        return self.path / "keys" / "runner.secret"

    @property
    def logs(self) -> Path:
        """Log files."""
        return self.path / "logs"

    def write_config(self, site: str, server: str, seal: str, port: int) -> None:
        """Write the commented settings of a site that joins."""
        quoted = {"site": json.dumps(site), "server": json.dumps(server), "seal": json.dumps(seal)}
        write_atomically(self.path / CONFIG, _TEMPLATE.format(**quoted, port=port).encode())

    def change_coordinator(self, server: str, seal: str) -> None:
        """Replace the server's address and key in the settings; everything else stays as it is."""
        path = self.path / CONFIG
        lines = path.read_text().splitlines()
        new = {"server": server, "seal": seal}
        for index, line in enumerate(lines):
            name = line.split("=", 1)[0].strip()
            if name in new and not line.startswith("["):
                lines[index] = f"{name} = {json.dumps(new.pop(name))}"
        write_atomically(path, ("\n".join(lines) + "\n").encode())

    def config(self) -> ClientConfig:
        """The settings; DataNotFound where no site has joined here, SettingsError by key."""
        path = self.path / CONFIG
        absent = (
            f"{self.path} is not an edge client's folder (there is no {CONFIG}); join with "
            "'fedqana client join FILE --data DIR' or name the folder with --home"
        )
        return read_settings(path, ClientConfig, absent)


def pinned_seal(home: Path) -> str | None:
    """The coordinator's public key that bundles must be signed with; None at a simulated site.

    DataNotFound at a hospital whose settings are gone: nothing unsigned is installed there.
    """
    path = home / CONFIG
    if not path.exists():
        if (home / "keys").exists():
            ClientFolder(home).config()
        return None
    return _seal_of(home, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _seal_of(home: Path, changed: int) -> str:
    return ClientFolder(home).config().seal
