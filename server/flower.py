"""The coordinator's thin layer over Flower: transport, strategies and the ServerApp.

The only module of `server` that imports flwr. Flower's `Strategy.start` waits without limit and
cannot resume, so the loop is our own (`server.rounds`) and of a strategy only `aggregate_train`
is used, on replies that were validated before.
"""

import logging
import os
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.app.metadata import Metadata
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import (
    FedAdam,
    FedAvg,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    Strategy,
)
from flwr.supercore.run import RunNotRunningException
from numpy.typing import NDArray

from common.errors import SiteRefused
from common.flower_records import (
    MESSAGE_TYPES,
    from_array_record,
    pack_instructions,
    payload_bytes,
    to_array_record,
    unpack_answer,
)
from common.messages import Instruction
from common.qana.weights import NamedWeights, is_statistic
from server.history.membership import Membership
from server.plan import RunPlan
from server.server_settings import FOLDER_VARIABLE
from server.transport import Delivery, Late

log = logging.getLogger("fedqana.run")

_POLL_SECONDS = 0.2
_UNREACHABLE = (httpx.HTTPError, OSError, RunNotRunningException)
"""The SuperLink is away, or the run was stopped: nothing that a site did."""
_ROBUST = ("fedmedian", "fedtrimmedavg", "krum")
_MOMENTS = ("m_t", "v_t")

# A strategy logs every call at INFO; what happens in a round is in the history's events.
logging.getLogger("flwr").setLevel(logging.WARNING)


class FlowerTransport:
    """`server.transport.Transport` over a Flower Grid, simulated or deployed.

    Parameters
    ----------
    grid : Grid
    members : Membership, optional
        Of a deployed server: only approved sites' nodes are asked.
    at_once : int, optional
        Messages that are under way at the same time; by default all of a step. For simulations:
        Flower's goes through all of them for each of its nodes, ten times a second.
    """

    def __init__(
        self, grid: Grid, members: Membership | None = None, at_once: int | None = None
    ) -> None:
        self._grid = grid
        self._members = members
        self._at_once = at_once

    def nodes(self) -> list[str]:
        """Ids of the connected nodes; text, because Flower's are beyond a signed 64-bit integer."""
        known = self.registered()
        nodes = sorted(str(node) for node in self._grid.get_node_ids())
        return nodes if known is None else [node for node in nodes if node in known]

    def registered(self) -> Mapping[str, str] | None:
        """Names of approved sites by node id; None in a simulation, which has no keys."""
        return None if self._members is None else self._members.names_by_node()

    def exchange(
        self, instructions: Mapping[str, Instruction], deadline: float, late: Late
    ) -> dict[str, Delivery]:
        """Push one message per node and pull replies until all are in or the deadline passes.

        The messages' time to live is the deadline, so that a slow site does not work through a
        queue of rounds that are over.
        """
        started = time.monotonic()
        names = self.registered() or {}  # once: it reads every member from the database
        contents = pack_instructions(instructions.values())
        waiting = deque(zip(instructions, contents, strict=True))
        sent = {node: payload_bytes(content) for node, content in waiting}
        pending: dict[str, str] = {}
        delivered: dict[str, Delivery] = {}
        while waiting or pending:
            while waiting and (self._at_once is None or len(pending) < self._at_once):
                node, content = waiting.popleft()
                message = Message(
                    content=content,
                    message_type=MESSAGE_TYPES[instructions[node].kind],
                    dst_node_id=int(node),
                    ttl=max(1.0, deadline - (time.monotonic() - started)),
                )
                # One at a time: Flower returns no id for a message that it cannot deliver.
                pending.update((pushed, node) for pushed in self._grid.push_messages([message]))
            replies, broken = self._pulled(list(pending))
            for message_id in broken:
                node = pending.pop(message_id)
                delivered[node] = Delivery(None, "malformed", sent[node], 0)
            for reply in replies:
                # A node that died answers as node 1: only the message id says who it was.
                message_id = reply.metadata.reply_to_message_id
                if message_id in pending:
                    node = pending.pop(message_id)
                    delivered[node] = _delivery(reply, node, sent[node])
                    self._note_heard(names.get(node), delivered[node])
            left = deadline - (time.monotonic() - started)
            if left <= 0:
                break
            if waiting or pending:
                late(sorted([*pending.values(), *(node for node, _ in waiting)]), left)
                if not replies:
                    time.sleep(min(_POLL_SECONDS, left))
        return delivered

    def _pulled(self, message_ids: list[str]) -> tuple[list[Message], list[str]]:
        """Replies that have come, and the ids of those that Flower cannot make a message of.

        What a site pushed is put together here, and a site may push anything.
        """
        try:
            return list(self._grid.pull_messages(message_ids)), []
        except _UNREACHABLE:
            raise
        except Exception:
            found: list[Message] = []
            broken: list[str] = []
            for message_id in message_ids:
                try:
                    found += self._grid.pull_messages([message_id])
                except _UNREACHABLE:
                    raise
                except Exception as error:
                    log.warning("a reply is not a message: %s", type(error).__name__)
                    broken.append(message_id)
            return found, broken

    def _note_heard(self, name: str | None, delivery: Delivery) -> None:
        if self._members is not None and delivery.answer is not None and name is not None:
            self._members.heard(name)


def _delivery(reply: Message, node: str, bytes_down: int) -> Delivery:
    if reply.has_error():
        return Delivery(None, f"engine-error-{reply.error.code}", bytes_down, 0)
    if not reply.has_content():
        return Delivery(None, "malformed", bytes_down, 0)
    size = payload_bytes(reply.content)
    if str(reply.metadata.src_node_id) != node:
        return Delivery(None, "unknown-site", bytes_down, size)
    try:
        return Delivery(unpack_answer(reply.content), "", bytes_down, size)
    except SiteRefused as error:
        return Delivery(None, error.code, bytes_down, size)


def _strategy(plan: RunPlan, n_updates: int) -> Strategy:
    """Flower's strategy of this name with the plan's settings.

    FedAdam and FedYogi as Reddi et al. (arXiv 2003.00295); trimming a quarter at either end;
    Krum tolerates as many hostile sites as its proof allows, (n - 3) / 2 (arXiv 1703.02757).
    """
    eta = plan.server_learning_rate
    strategies: dict[str, Any] = {
        "fedavg": lambda: FedAvg(),
        "fedprox": lambda: FedProx(proximal_mu=plan.proximal),
        "fedadam": lambda: FedAdam(eta=eta),
        "fedyogi": lambda: FedYogi(eta=eta),
        "fedmedian": lambda: FedMedian(),
        "fedtrimmedavg": lambda: FedTrimmedAvg(beta=0.25),
        "krum": lambda: Krum(num_malicious_nodes=max(0, (n_updates - 3) // 2)),
    }
    made: Strategy = strategies[plan.strategy]()
    return made


def aggregate(
    plan: RunPlan,
    round_number: int,
    current: NamedWeights,
    updates: Mapping[str, tuple[NamedWeights, float]],
    memory: NamedWeights,
) -> tuple[NamedWeights, NamedWeights]:
    """Combine the sites' validated updates by the plan's strategy.

    Parameters
    ----------
    current : named arrays
        The global weights that the sites started from.
    updates : mapping of site to (named arrays, weight)
        At least one; weights are above 0, such as numbers of examples. Combined in the order of
        the sites' names, so that the sum's rounding does not depend on who answered first.
    memory : named arrays
        What the strategy remembered after its last round (moments of FedAdam, FedYogi).

    Returns
    -------
    (named arrays, named arrays)
        New global weights and the strategy's memory, float32. Batch norm's moving statistics
        are not a strategy's business (an adaptive step could make a variance negative): they
        are those of the weighted mixture of all sites' cases (law of total variance), for the
        robust strategies the coordinate-wise median; while they are fixed they stay the current
        ones.
    """
    sites = sorted(updates)
    strategy = _strategy(plan, len(sites))
    learned = [name for name in current if not is_statistic(name)]
    if hasattr(strategy, "current_arrays"):
        strategy.current_arrays = {name: current[name] for name in learned}
        for moment in _MOMENTS:
            kept = {n.split(":", 1)[1]: a for n, a in memory.items() if n.startswith(f"{moment}:")}
            setattr(strategy, moment, kept or None)
    replies = [
        _reply({name: updates[site][0][name] for name in learned}, updates[site][1])
        for site in sites
    ]
    record, _ = strategy.aggregate_train(round_number, replies)
    assert isinstance(record, ArrayRecord)
    combined = from_array_record(record)
    shares = np.array([updates[site][1] for site in sites], np.float64)
    statistics = {
        name: np.stack([updates[site][0][name] for site in sites]).astype(np.float64)
        for name in current
        if is_statistic(name)
    }
    if plan.fixes_batch_norm(round_number):
        combined.update({name: current[name] for name in statistics})
    elif plan.strategy in _ROBUST:
        combined.update({name: np.median(each, axis=0) for name, each in statistics.items()})
    else:
        combined.update(_pooled(statistics, shares))
    new_memory = {
        f"{moment}:{name}": np.asarray(array, np.float32)
        for moment in _MOMENTS
        for name, array in (getattr(strategy, moment, None) or {}).items()
    }
    return {name: np.asarray(combined[name], np.float32) for name in current}, new_memory


def _pooled(
    statistics: Mapping[str, NDArray[np.float64]], shares: NDArray[np.float64]
) -> NamedWeights:
    """Means and variances of all cases together, from those of the sites (first axis).

    The variance of a mixture is the mean of the variances plus the variance of the means; the
    mean of the variances alone would leave out how unlike the sites are.
    """
    pooled = {}
    for name, each in statistics.items():
        value = np.average(each, axis=0, weights=shares)
        if name.endswith("/moving_variance"):
            means = statistics[name.replace("/moving_variance", "/moving_mean")]
            apart = (means - np.average(means, axis=0, weights=shares)) ** 2
            value = value + np.average(apart, axis=0, weights=shares)
        pooled[name] = value.astype(np.float32)
    return pooled


def _reply(weights: NamedWeights, weight: float) -> Message:
    """A validated update in the form in which Flower's strategies expect a reply."""
    content = RecordDict(
        {
            "arrays": to_array_record(weights),
            "metrics": MetricRecord({"num-examples": weight}),
        }
    )
    metadata = Metadata(0, "", 0, 0, "", "", 0.0, 1.0, "train")
    return Message(content=content, metadata=metadata)


app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run or resume a run.

    Deployed, the run configuration has the run's name and the environment the server's folder: a
    run configuration is sent to the sites, so it holds no path. In a simulation it names the
    folder, and it may have ``at-once`` of the transport.
    """
    if FOLDER_VARIABLE in os.environ and (run := str(context.run_config.get("run", ""))):
        from server.deployed_run import coordinate_deployed

        coordinate_deployed(run, lambda members: FlowerTransport(grid, members))
        return
    from server.run_folder import coordinate

    folder, database = (str(context.run_config[name]) for name in ("run-folder", "database"))
    at_once = context.run_config.get("at-once")
    transport = FlowerTransport(grid, at_once=None if at_once is None else int(at_once))
    coordinate(Path(folder), transport, database)
