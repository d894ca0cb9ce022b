"""`fedqana server start`: SuperLink, SuperExec and front, kept running; runs kept going."""

import logging
import os
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

from common.errors import StateDamaged
from common.file_lock import file_lock
from common.json_log import log_to_stream, rotating_file
from common.supervisor import ProcessSpec, Supervisor
from server.certificates import expires
from server.history.store import open_history
from server.run_control import keep_going_forever
from server.server_settings import FOLDER_VARIABLE, ServerFolder

log = logging.getLogger("fedqana.server")

_POLL_SECONDS = "0.5"
_WARN_DAYS = 30


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
        ProcessSpec("superlink", superlink, environment),
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
    until = expires(folder.tls / "server.crt")
    open_history(folder.database_url()).close()
    os.umask(0o077)
    folder.flower.mkdir(parents=True, exist_ok=True)
    log_to_stream()
    logging.getLogger().addHandler(rotating_file(folder.logs / "server.log"))
    log.info("serving %s; certificate until %s", settings.address, f"{until:%Y-%m-%d}")
    if (until - datetime.now(UTC)).days < _WARN_DAYS:
        log.warning(
            "the certificate ends on %s; renew it with 'fedqana server renew'", f"{until:%Y-%m-%d}"
        )
    supervisor = Supervisor(processes(folder))
    keeper = threading.Thread(
        target=keep_going_forever, args=(folder, supervisor.stopping), daemon=True
    )
    busy = f"a server runs on {folder.path} already; stop it first"
    with file_lock(folder.path / "server.lock", 0.0, busy):
        keeper.start()
        supervisor.run()
    log.info("stopped")
