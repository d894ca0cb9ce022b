"""A Flower Grid that calls the ClientApp within this process: no Ray, no second TensorFlow.

The deployed ServerApp and ClientApp run on it unchanged. Sites are served one after the other,
each message when its reply is asked for; a deadline can end the wait between two sites, not
within one.
"""

from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

_RUN_ID = 1
_SERVER_NODE = 1
_FIRST_NODE = 2
_CLIENT_APP_ERROR = 2
"""Flower's code for a ClientApp that raised (`flwr.common.constant.ErrorCode`)."""


class InProcessGrid(Grid):
    """One node per site folder, in the order given.

    Parameters
    ----------
    client_app : ClientApp
    site_folders : list of Path
    """

    def __init__(self, client_app: ClientApp, site_folders: list[Path]) -> None:
        self._client_app = client_app
        self._contexts = {
            _FIRST_NODE + index: Context(
                run_id=_RUN_ID,
                node_id=_FIRST_NODE + index,
                node_config={"site-folder": str(folder)},
                state=RecordDict(),
                run_config={},
            )
            for index, folder in enumerate(site_folders)
        }
        self._waiting: dict[str, Message] = {}
        self._run = Run.create_empty(_RUN_ID)

    def set_run(self, run: Run) -> None:
        """Set the run that messages belong to."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that messages belong to."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message to a node (Flower's older way of making one)."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Ids of all nodes."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Take messages; returns their ids."""
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(uuid4())
            self._waiting[message.metadata.message_id] = message
            ids.append(message.metadata.message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Let the ClientApp answer the next waiting message among ``message_ids``."""
        for message_id in message_ids:
            message = self._waiting.pop(message_id, None)
            if message is not None:
                return [self._serve(message)]
        return []

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push, then pull all replies; the timeout has no meaning within one process."""
        ids = list(self.push_messages(messages))
        return [reply for _ in ids for reply in self.pull_messages(ids)]

    def _serve(self, message: Message) -> Message:
        context = self._contexts[message.metadata.dst_node_id]
        try:
            return self._client_app(message, context)
        except Exception as error:  # as a SuperNode does: the app's failure is a reply
            return Message(Error(_CLIENT_APP_ERROR, type(error).__name__), reply_to=message)


def run_in_process(
    server_app: ServerApp,
    client_app: ClientApp,
    run_folder: Path,
    database: str,
    site_folders: list[Path],
) -> None:
    """Run the ServerApp over an `InProcessGrid` until it returns or raises."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, _RUN_ID, _SERVER_NODE
    context = Context(
        run_id=_RUN_ID,
        node_id=_SERVER_NODE,
        node_config={},
        state=RecordDict(),
        run_config={"run-folder": str(run_folder), "database": database},
    )
    server_app(InProcessGrid(client_app, site_folders), context)
