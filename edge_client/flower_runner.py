"""A resident process that answers Flower's messages with the installed ClientApp.

Flower's own way is a new process for every message, which unpacks the application that the server
sent and imports TensorFlow anew. This one takes the place of `flower-superexec` and
`flwr-clientapp` at a site, over the same local API of the SuperNode:

- it never unpacks or imports what the server sent; what runs is `edge_client.flower` as installed
  here, and an application with another hash than the fixed one is refused before its message is
  read;
- TensorFlow, the Akida backend and the compiled training step stay in memory between rounds.

Its imports from flwr are those of Flower 1.41's own `run_clientapp`.
"""

import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

import logging
import threading
import time
from pathlib import Path

import httpx
from flwr.app import Context, Message
from flwr.app.error import Error
from flwr.common.constant import ErrorCode, SubStatus
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime.run_clientapp import (
    pull_task_input,
    push_message,
    push_task_output,
)

from common.flower_app import app_bundle
from edge_client.client_folder import ClientFolder
from edge_client.flower import app

log = logging.getLogger("fedqana.runner")

_POLL_SECONDS = 0.25
_LONGEST_PAUSE = 5.0
_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"


class Runner:
    """Takes tasks from the SuperNode of this machine, one at a time."""

    def __init__(self, home: Path) -> None:
        folder = ClientFolder(home)
        self._address = f"127.0.0.1:{folder.config().flower.port}"
        self._fixed_hash = app_bundle()[1]
        self._tasks = RuntimeHttpClient.from_server_address(
            server_address=self._address,
            insecure=True,
            root_certificates=None,
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="SuperExec"),
                SuperExecAuthHttpInterceptor(
                    master_secret=folder.runner_secret.read_bytes(), protected_methods={_ACQUIRE}
                ),
            ],
        )

    def run(self, stop: threading.Event) -> None:
        """Serve until ``stop`` is set; a message under way is finished first."""
        pause, waiting = _POLL_SECONDS, False
        while not stop.wait(pause):
            try:
                found = self._tasks.AcquireTask(
                    AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP])
                )
            except (httpx.HTTPError, OSError) as error:
                pause = min(max(1.0, pause * 2), _LONGEST_PAUSE)
                if not waiting:
                    log.info("Flower's node is not there (%s), waiting", type(error).__name__)
                waiting = True
                continue
            pause, waiting = _POLL_SECONDS, False
            if found.HasField("task") and found.token:
                self._serve(found.token)

    def _serve(self, token: str) -> None:
        client = RuntimeHttpClient.from_server_address(
            server_address=self._address,
            insecure=True,
            root_certificates=None,
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="flwr-clientapp"),
                RuntimeTokenHttpInterceptor(token),
            ],
            retry_invoker=make_simple_http_retry_invoker(),
        )
        heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(client))
        context: Context | None = None
        status = SubStatus.FAILED
        try:
            heartbeat.start()
            message, context, run, fab = pull_task_input(client)
            started = time.monotonic()
            reply = self._answer(message, context, run.fab_hash, fab.hash_str)
            push_message(client, reply, context)
            status = SubStatus.COMPLETED
            seconds = round(time.monotonic() - started, 3)
            facts = {"kind": message.metadata.message_type, "seconds": seconds}
            log.info("answered", extra={"facts": facts})
        except Exception:  # the node answers the server that its app has crashed
            log.exception("a message could not be answered")
        finally:
            push_task_output(client=client, context=context, sub_status=status, details="")
            if heartbeat.is_running:
                heartbeat.stop()
            client.close()

    def _answer(self, message: Message, context: Context, announced: str, carried: str) -> Message:
        if not announced == carried == self._fixed_hash:
            log.error("refused an application that is not the installed one: %s", carried[:16])
            refused = Error(ErrorCode.INVALID_FAB, "not the application installed at this site")
            return Message(refused, reply_to=message)
        return app(message, context)


def main(home: Path) -> None:
    """Serve messages until SIGTERM."""
    import signal

    from common.json_log import log_to_stream

    log_to_stream()
    logging.getLogger("flwr").setLevel(logging.WARNING)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    runner = Runner(home)
    import common.keras_setup  # noqa: F401  (TensorFlow is loaded before the first message)

    log.info("ready")
    runner.run(stop)


if __name__ == "__main__":
    import sys

    main(Path(sys.argv[1]))
