"""The deployed ClientApp with one site that misbehaves, and engines in which one is silent."""

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from flwr.app import Context, Message
from flwr.supercore.task_identity import TaskIdentity

from common.flower_records import pack_answer, unpack_answer
from common.messages import Answer
from edge_client.flower import app as deployed
from server.flower import FlowerTransport
from server.history.engine import default_url
from server.run_folder import coordinate
from simulation.in_process import InProcessGrid
from simulation.run import _SETTINGS
from simulation.sites import DataSettings, write_sites

Twist = Callable[[Answer, int], Answer]


class HostileSites:
    """Calls the deployed ClientApp; chosen answers are twisted on their way back.

    Parameters
    ----------
    twists : dict of (kind of message, site) to a function of the answer and of how many messages
        of this kind the site had before.
    """

    def __init__(self, twists: dict[tuple[str, str], Twist]) -> None:
        self._twists = twists
        self._asked: Counter[tuple[str, str]] = Counter()
        self.answers: dict[tuple[str, str], Answer] = {}
        """The last answer of each kind and site, before the twist."""

    def __call__(self, message: Message, context: Context) -> Message:
        reply = deployed(message, context)
        site = Path(str(context.node_config["site-folder"])).name
        key = (message.metadata.message_type.removeprefix("query."), site)
        self.answers[key] = unpack_answer(reply.content)
        before = self._asked[key]
        self._asked[key] += 1
        if key in self._twists:
            twisted = self._twists[key](self.answers[key], before)
            return Message(pack_answer(twisted), reply_to=message)
        return reply


class SilentGrid(InProcessGrid):
    """One node takes the messages that ``drops`` chooses and never answers them."""

    drops: Callable[[Message], bool] = staticmethod(lambda message: False)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        taken = list(messages)
        ids = list(super().push_messages(taken))
        for message_id, message in zip(ids, taken, strict=True):
            if self.drops(message):
                del self._waiting[message_id]
        return ids


def site_folders(folder: Path) -> list[Path]:
    """The sites' folders of a run, made where they are not there yet."""
    settings = DataSettings.model_validate_json((folder / _SETTINGS).read_bytes())
    return write_sites(settings, folder / "sites", None)


def run_with(
    folder: Path,
    client: Callable[[Message, Context], Message] = deployed,
    drops: Callable[[Message], bool] | None = None,
    sites: list[Path] | None = None,
    registered: Callable[[], dict[str, str]] | None = None,
) -> None:
    """Run or resume over the in-process engine with another client or silent nodes.

    ``registered`` gives the approved sites' names by node id, as a deployed server has them.
    """
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    grid = SilentGrid(client, sites or site_folders(folder))
    if drops:
        grid.drops = drops
    transport = FlowerTransport(grid)
    if registered:
        transport.registered = registered  # type: ignore[method-assign]
    coordinate(folder, transport, default_url(folder.parent))
