"""`fedqana server start`: SuperLink, SuperExec and front, kept running; runs kept going."""

import logging
import os
import re
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

from common.errors import StateDamaged
from common.file_lock import file_lock
from common.free_port import require_free
from common.json_log import log_to_stream, rotating_file
from common.supervisor import ProcessSpec, Supervisor
from server.certificates import expires
from server.run_control import keep_going_forever
from server.server_database import open_runs
from server.server_settings import (
    FOLDER_VARIABLE,
    SERVER_LOCK,
    ServerFolder,
    ServerSettings,
    split_address,
)

log = logging.getLogger("fedqana.server")

_POLL_SECONDS = "0.5"
_WARN_DAYS = 30
_OWN_POLLING = re.compile(r"uvicorn\.access|ControlServicer\.List")
"""Lines of the SuperLink about each of this server's own looks, every few seconds."""
_DAY_SECONDS = 86_400.0


def processes(folder: ServerFolder) -> list[ProcessSpec]:
    """What runs at a coordinator's server, in the order of their start."""
    here = Path(sys.executable).parent
    environment = {
        FOLDER_VARIABLE: str(folder.path),
        "FLWR_HOME": str(folder.flower),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": _POLL_SECONDS,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONUNBUFFERED": "1",
        # Flower's clients would send even what is for loopback through a proxy.
        "NO_PROXY": "*",
        "no_proxy": "*",
        # SuperExec starts the ServerApp's program by its name.
        "PATH": f"{here}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }
    secret = str(folder.superexec_secret)
    superlink = [
        str(here / "flower-superlink"),
        *("--ssl-ca-certfile", str(folder.ca)),
        *("--ssl-certfile", str(folder.tls / "server.crt")),
        *("--ssl-keyfile", str(folder.tls / "server.key")),
        "--enable-supernode-auth",
        *("--database", str(folder.flower / "superlink.db")),
        *("--isolation", "process"),
        *("--superexec-auth-secret-file", secret),
        "--disable-runtime-dependency-installation",
        *("--host", "127.0.0.1"),
        *("--port", str(folder.settings().superlink.port)),
    ]
    superexec = [
        str(here / "flower-superexec"),
        *("--runtime-api-address", folder.superlink_address()),
        *("--root-certificates", str(folder.ca)),
        *("--superexec-auth-secret-file", secret),
    ]
    front = [sys.executable, "-m", "server.front"]
    return [
        ProcessSpec("superlink", superlink, environment, unsaid=_OWN_POLLING),
        ProcessSpec("superexec", superexec, environment),
        ProcessSpec("front", front, environment),
    ]


def start(folder: ServerFolder) -> None:
    """Run the server until SIGTERM or SIGINT.

    What cannot work is refused first: settings, keys, certificate, database.
    """
    settings = folder.settings()
    for needed in (folder.bundle_key, folder.superexec_secret, folder.tls / "server.key"):
        if not needed.is_file():
            raise StateDamaged(f"{needed} is missing; restore it from a backup")
    certificate = folder.tls / "server.crt"
    until = expires(certificate)
    open_runs(folder).close()
    os.umask(0o077)
    folder.flower.mkdir(parents=True, exist_ok=True)
    supervisor = Supervisor(processes(folder))
    stop = supervisor.stopping
    beside = [
        threading.Thread(target=keep_going_forever, args=(folder, stop), daemon=True),
        threading.Thread(target=_watch_certificate, args=(certificate, stop), daemon=True),
    ]
    busy = f"a server runs on {folder.path} already; stop it first"
    with file_lock(folder.path / SERVER_LOCK, 0.0, busy):
        _require_ports(settings)
        log_to_stream()
        logging.getLogger().addHandler(rotating_file(folder.logs / "server.log"))
        log.info("serving %s; certificate until %s", settings.address, f"{until:%Y-%m-%d}")
        for thread in beside:
            thread.start()
        supervisor.run()
    log.info("stopped")


def _require_ports(settings: ServerSettings) -> None:
    """SettingsError where one of the server's ports is in use."""
    front = settings.front
    embedded = front.kind == "embedded"
    name, address = (
        ("front.listen", front.listen) if embedded else ("front.enrolment", front.enrolment)
    )
    for setting, (host, port) in (
        (name, split_address(address, name)),
        ("superlink.port", ("127.0.0.1", settings.superlink.port)),
    ):
        require_free(host, port, setting)


def _watch_certificate(certificate: Path, stop: threading.Event) -> None:
    """Say once a day that the certificate is about to end, or has."""
    while not stop.is_set():
        try:
            until = expires(certificate)
            if (until - datetime.now(UTC)).days < _WARN_DAYS:
                text = "the certificate ends on %s; renew it with 'fedqana server renew'"
                log.warning(text, f"{until:%Y-%m-%d}")
        except StateDamaged as error:
            log.error("%s", error)
        stop.wait(_DAY_SECONDS)
