"""`fedqana client start`: Flower's node, the runner, the local service, kept running for months."""

import logging
import os
import re
import signal
import sys
from functools import partial
from pathlib import Path

from common.errors import StateDamaged
from common.file_lock import file_lock
from common.free_port import require_free
from common.json_log import log_to_stream, rotating_file
from common.supervisor import ProcessSpec, Supervisor
from edge_client.client_folder import CONFIG, ClientFolder
from edge_client.coordinator import why_not_connected
from edge_client.local_service.settings import endpoint_of, require_safe, settings_of
from edge_client.policy import read_policy
from edge_client.site import SiteFolder

log = logging.getLogger("fedqana.client")

_HEARTBEAT_LAPSES = 70.0
"""Seconds. Flower refuses a node's key until the heartbeat of a killed node has lapsed, up to 60 s;
a node that is back before is never reported as lost: the round would wait out its deadline."""

_FLOWERS_WORDS = re.compile(
    r"flower\.ai|EXPERIMENTAL:|Exit Code: \d|\[code: \d|FastAPI lifespan|server process \[|"
    r"application (startup|shutdown)|Uvicorn running|Shutting down|"
    r"connection to the SuperLink\."
)
"""Of a node that is not let in Flower says this at every try; `why_not_connected` says why."""

_ASK_AGAIN = 15.0
"""Seconds between two tries to connect, e.g. while the site waits for approval."""


def processes(folder: ClientFolder) -> list[ProcessSpec]:
    """What runs at a site, in the order of its start."""
    config = folder.config()
    home = str(folder.path)
    environment = {
        "FLWR_HOME": str(folder.path / "flower"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONUNBUFFERED": "1",
        # Flower's clients would send even what is for loopback through a proxy.
        "NO_PROXY": "*",
        "no_proxy": "*",
    }
    python = [sys.executable, "-m"]
    node = [
        *python,
        "edge_client.flower_node",
        *("--root-certificates", str(folder.ca)),
        *("--superlink", config.server),
        *("--auth-supernode-private-key", str(folder.key)),
        *("--node-config", f'site-folder="{home}"'),
        *("--isolation", "process"),
        *("--superexec-auth-secret-file", str(folder.runner_secret)),
        *("--host", "127.0.0.1"),
        *("--port", str(config.flower.port)),
    ]
    found = [
        ProcessSpec("service", [*python, "edge_client.local_service", home], environment),
        ProcessSpec(
            "trainer",
            [*python, "edge_client.flower_runner", home],
            environment,
            # Asked to end, it would finish its message first, beside the one that follows it.
            with_parent=signal.SIGKILL,
        ),
        ProcessSpec(
            "node",
            node,
            environment,
            after_kill=_HEARTBEAT_LAPSES,
            longest_delay=_ASK_AGAIN,
            diagnose=partial(why_not_connected, folder),
            unsaid=_FLOWERS_WORDS,
        ),
    ]
    if config.watch.folder:
        watch = [*python, "edge_client.watched_folder", home]
        found.append(ProcessSpec("watch", watch, environment))
    return found


def start(home: Path) -> None:
    """Run the edge client until SIGTERM or SIGINT; what cannot work is refused first."""
    folder = ClientFolder(home)
    config = folder.config()
    for needed in (folder.key, folder.ca, folder.runner_secret):
        if not needed.is_file():
            raise StateDamaged(f"{needed} is missing; restore it from a backup, or join anew")
    SiteFolder(home).read()
    read_policy(home)
    os.umask(0o077)
    (home / "flower").mkdir(exist_ok=True)
    service = settings_of(home)
    require_safe(endpoint_of(service.address, home), service.tls)
    busy = f"an edge client runs on {home} already; stop it first"
    with file_lock(home / "client.lock", 0.0, busy):
        require_free("127.0.0.1", config.flower.port, f"{home / CONFIG}: flower.port")
        log_to_stream()
        logging.getLogger().addHandler(rotating_file(folder.logs / "client.log"))
        log.info("site %s of %s", config.site, config.server)
        if config.watch.folder and not (home / config.watch.folder).is_dir():
            log.warning("there is no folder %s to watch yet", home / config.watch.folder)
        Supervisor(processes(folder)).run()
    log.info("stopped")
