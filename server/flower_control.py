"""The coordinator's hand on Flower's SuperLink: nodes and runs, over loopback.

Flower's Control API has no authentication of its own, so the SuperLink listens on loopback only
and sites never reach it (`server.front`). Uses the client behind the `flwr` command, which
answers in 0.05 s where the command takes 2 s.
"""

import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import httpx
from flwr.common.serde import fab_to_proto, user_config_from_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

from common.errors import ServiceUnavailable
from common.flower_app import app_bundle
from common.keys import node_key
from server.server_settings import ServerFolder


@dataclass(frozen=True)
class NodeStatus:
    """A site's node as the SuperLink knows it; ``status`` e.g. "online" or "unregistered"."""

    node_id: str
    status: str
    last_activated: datetime | None


@dataclass(frozen=True)
class FlowerRun:
    """A run as the SuperLink knows it: pending, starting, running or finished, and how.

    ``name`` is that of the run in this server's folder, "" for what is none of ours.
    """

    run_id: str
    name: str
    status: str
    ended: str

    @property
    def under_way(self) -> bool:
        """Whether it has not ended."""
        return self.status != "finished"


_RUN_KEY = "run"
_NEWEST_RUNS = 50
"""Flower cleans up after every finished run that it lists, milliseconds each."""


class FlowerControl:
    """Commands to this machine's SuperLink.

    Every call raises ServiceUnavailable where it does not answer.
    """

    def __init__(self, folder: ServerFolder) -> None:
        self._client = ControlHttpClient.from_server_address(
            folder.superlink_address(),
            insecure=False,
            root_certificates=str(folder.ca),
            interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
        )

    def register(self, public_key: str, name: str) -> str:
        """Let the owner of an OpenSSH public key connect; returns its node id.

        A key that is registered already gives the id that it has.
        """
        key = node_key(public_key)
        with _telling():
            for node in self._client.ListNodes(ListNodesRequest()).nodes_info:
                if node.public_key == key and node.status != "unregistered":
                    return str(node.node_id)
        try:
            with _telling():
                request = RegisterNodeRequest(public_key=key, name=name)
                return str(self._client.RegisterNode(request).node_id)
        except ServiceUnavailable as error:
            if isinstance(error.__cause__, httpx.HTTPStatusError):
                raise ServiceUnavailable(
                    f"the SuperLink did not take the key of {name} "
                    f"({error.__cause__.response.text[:200]}); revoke the site and invite it anew"
                ) from error
            raise

    def unregister(self, node_id: str) -> None:
        """Refuse a node from now on; one that is not known is refused anyway."""
        try:
            with _telling():
                self._client.UnregisterNode(UnregisterNodeRequest(node_id=int(node_id)))
        except ServiceUnavailable as error:
            if not isinstance(error.__cause__, httpx.HTTPStatusError):
                raise

    def nodes(self) -> list[NodeStatus]:
        """All nodes that were ever registered."""
        with _telling():
            found = self._client.ListNodes(ListNodesRequest()).nodes_info
        return [
            NodeStatus(
                str(n.node_id),
                n.status,
                datetime.fromisoformat(n.last_activated_at) if n.last_activated_at else None,
            )
            for n in found
        ]

    def start(self, run: str) -> str:
        """Start the ServerApp for a run of this server's folder; returns Flower's run id."""
        content, sha256 = app_bundle()
        request = StartRunRequest(
            fab=fab_to_proto(Fab(sha256, content, {})),
            override_config=user_config_to_proto({_RUN_KEY: run}),
        )
        with _telling():
            return str(self._client.StartRun(request).run_id)

    def stop(self, flower_run: str) -> None:
        """Stop a run's ServerApp; one that has ended stays as it is."""
        try:
            with _telling():
                self._client.StopRun(StopRunRequest(run_id=int(flower_run)))
        except ServiceUnavailable as error:
            if not isinstance(error.__cause__, httpx.HTTPStatusError):
                raise

    def runs(self, ids: Collection[str]) -> dict[str, FlowerRun]:
        """The runs of these ids of Flower's; those that it does not know are left out."""
        found: dict[str, FlowerRun] = {}
        for number in ids:
            try:
                found |= self._listed(ListRunsRequest(run_id=int(number)))
            except ServiceUnavailable as error:
                if not isinstance(error.__cause__, httpx.HTTPStatusError):
                    raise
        return found

    def under_way(self) -> dict[str, str]:
        """Our name, by Flower's id, of those of the newest runs that have not ended."""
        newest = self._listed(ListRunsRequest(limit=_NEWEST_RUNS))
        return {number: run.name for number, run in newest.items() if run.under_way}

    def _listed(self, request: ListRunsRequest) -> dict[str, FlowerRun]:
        with _telling():
            found = self._client.ListRuns(request).run_dict
        return {
            str(number): FlowerRun(
                str(number),
                str(user_config_from_proto(run.override_config).get(_RUN_KEY, "")),
                run.status.status,
                run.status.sub_status,
            )
            for number, run in found.items()
        }

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


@contextmanager
def flower_control(folder: ServerFolder) -> Iterator[FlowerControl]:
    """A `FlowerControl` that is closed at the end of the block."""
    control = FlowerControl(folder)
    try:
        yield control
    finally:
        control.close()


@contextmanager
def _telling() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPStatusError as error:
        raise ServiceUnavailable(
            f"the SuperLink refused ({error.response.status_code}: {error.response.text[:200]}); "
            "see logs/server.log in the server's folder"
        ) from error
    except (httpx.HTTPError, OSError) as error:
        raise ServiceUnavailable(
            f"the SuperLink of this machine does not answer ({type(error).__name__}); start it "
            "with 'fedqana server start', or wait until it is up"
        ) from error
