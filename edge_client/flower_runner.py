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
import queue
import threading
import time
from pathlib import Path

import httpx
import psutil
from flwr.app import Context, Message
from flwr.app.error import Error
from flwr.common.constant import ErrorCode, SubStatus
from flwr.proto.runtime_pb2 import AcquireTaskRequest, SendTaskHeartbeatRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.retry import RetryInvoker, make_simple_http_retry_invoker
from flwr.supercore.run import Run
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime.run_clientapp import (
    pull_task_input,
    push_message,
    push_task_output,
)

from common.files import sha256_of
from common.flower_app import app_bundle
from edge_client.audit_log import AuditLog
from edge_client.client_folder import ClientFolder
from edge_client.flower import app

log = logging.getLogger("fedqana.runner")

_Task = tuple[Message, Context, Run, Fab]
_PULL_LOOK_SECONDS = 1.0

_POLL_SECONDS = 0.25
_LONGEST_PAUSE = 5.0
_GIVEN_UP = 1
_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"


class Runner:
    """Takes tasks from the SuperNode of this machine, one at a time."""

    def __init__(self, home: Path) -> None:
        self._home = home
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
                token = self._next_token()
            except (httpx.HTTPError, OSError) as error:
                pause = min(max(1.0, pause * 2), _LONGEST_PAUSE)
                if waiting:
                    continue
                if isinstance(error, httpx.HTTPStatusError):
                    log.error(
                        "what listens on the node's port refuses the trainer (HTTP %d); is "
                        "another program there? client.toml names the port; waiting",
                        error.response.status_code,
                    )
                else:
                    log.info("Flower's node is not there (%s), waiting", type(error).__name__)
                waiting = True
                continue
            pause, waiting = _POLL_SECONDS, False
            while token:
                token = self._serve(token)

    def _next_token(self) -> str:
        """The token of a task that waits, "" where none does."""
        found = self._tasks.AcquireTask(
            AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP])
        )
        return str(found.token) if found.HasField("task") else ""

    def _serve(self, token: str) -> str:
        """Answer the message of a task; returns the token of a task that took its place, or ""."""
        client = self._client_of_task(token, make_simple_http_retry_invoker())
        over = threading.Event()
        heartbeat = HeartbeatSender(lambda: self._beat(token, over))
        begun = time.time()
        context: Context | None = None
        status, instead = SubStatus.FAILED, ""
        try:
            heartbeat.start()
            pulled, instead = self._pulled(client)
            if pulled is None:
                log.info("a message was given up: its run was stopped while it arrived")
                return instead
            message, context, run, fab = pulled
            started = time.monotonic()
            try:
                reply = self._answer(message, context, run.fab_hash, fab.hash_str)
            except Exception:
                log.exception("a message could not be answered")
                reply = self._refusal(message, ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "")
            push_message(client, reply, context)
            status = SubStatus.COMPLETED
            seconds = round(time.monotonic() - started, 3)
            facts = {"kind": message.metadata.message_type, "seconds": seconds}
            log.info("answered", extra={"facts": facts})
        except Exception:
            # Without a reply the node waits for one for ever: it is to start anew.
            log.exception("an answer could not be handed over; the node starts anew")
            self._end_node(begun)
        finally:
            over.set()
            push_task_output(client=client, context=context, sub_status=status, details="")
            if heartbeat.is_running:
                heartbeat.stop()
            client.close()  # ends a pull that still waits, too
        return instead

    def _client_of_task(
        self, token: str, retry_invoker: RetryInvoker | None = None
    ) -> RuntimeHttpClient:
        """A connection to the node for one task; without retries unless told."""
        return RuntimeHttpClient.from_server_address(
            server_address=self._address,
            insecure=True,
            root_certificates=None,
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="flwr-clientapp"),
                RuntimeTokenHttpInterceptor(token),
            ],
            retry_invoker=retry_invoker,
        )

    def _pulled(self, client: RuntimeHttpClient) -> tuple[_Task | None, str]:
        """What there is to do; or None and the token of the next task.

        SuperNode makes a message's task before the message has arrived. Where the run is stopped
        meanwhile it never does, and Flower's pull would wait for two hours. SuperNode handles one
        message at a time, so a second task says that the first was given up.
        """
        found: queue.Queue[_Task | Exception] = queue.Queue()

        def pull() -> None:
            try:
                found.put(pull_task_input(client))
            except Exception as error:
                found.put(error)

        threading.Thread(target=pull, daemon=True).start()
        while True:
            try:
                result = found.get(timeout=_PULL_LOOK_SECONDS)
            except queue.Empty:
                token = self._next_token()
                if token:
                    return None, token
                continue
            if isinstance(result, Exception):
                raise result
            return result, ""

    def _answer(self, message: Message, context: Context, announced: str, carried: str) -> Message:
        if not announced == carried == self._fixed_hash:
            log.error("refused an application that is not the installed one: %s", carried[:16])
            reason = "not the application installed at this site"
            return self._refusal(message, ErrorCode.INVALID_FAB, reason)
        return app(message, context)

    def _refusal(self, message: Message, code: int, reason: str) -> Message:
        """An error in the place of an answer, written into the audit log as any answer."""
        AuditLog(self._home).append(
            kind="refusal",
            run="",
            round_number=0,
            size=len(reason),
            sha256=sha256_of(reason.encode()),
            contents=(),
            code="bad-instruction",
        )
        return Message(Error(code, reason), reply_to=message)

    def _beat(self, token: str, over: threading.Event) -> bool:
        """Tell the node that its task is being worked on; whether it heard.

        A node that was started anew does not know the task, and nobody waits for its answer: the
        process ends with it, be it in the middle of a training, and is there for the next one.
        """
        client = self._client_of_task(token)
        try:
            known = bool(client.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success)
        except httpx.HTTPStatusError as error:
            if error.response.status_code != httpx.codes.UNAUTHORIZED:
                return False
            known = False
        except (httpx.HTTPError, OSError):
            return False
        finally:
            client.close()
        if not known and not over.is_set():
            log.warning("the node has started anew: what was under way is given up")
            logging.shutdown()
            os._exit(_GIVEN_UP)
        return True

    def _end_node(self, begun: float) -> None:
        """Ask the SuperNode that gave a task then to end; its supervisor starts it again."""
        for process in psutil.process_iter():
            try:
                line, started = process.cmdline(), process.create_time()
            except psutil.Error:
                continue
            if started > begun:  # another one, which knows nothing of the task
                continue
            if "edge_client.flower_node" in line and str(self._home) in " ".join(line):
                process.terminate()


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
