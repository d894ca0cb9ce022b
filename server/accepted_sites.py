"""The sites of a run: who they are, and one step of the round done with them.

Who is asked, and what of the answers stands up to checking, is decided here; what is asked and
what becomes of it in `server.rounds`. Every site's outcome goes into the history, and a site that
is missing, late or refused is named.
"""

import math
import time
from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from common.classes import ClassMap
from common.errors import QuorumMissed, SiteRefused
from common.messages import (
    PROTOCOL,
    Answer,
    HandshakeAsk,
    HandshakeReply,
    Instruction,
    Kind,
)
from common.qana.networks import model_hash
from server.plan import RunPlan
from server.run_log import RunLog, seconds_of
from server.step_times import SITES, TRANSPORT, StepTimes, busy
from server.transport import Delivery, Transport
from server.validation import check_handshake, parsed

T = TypeVar("T")
Tell = Callable[..., None]
_WAIT_FOR_NODES = 0.5
_NAMES_SHOWN = 20
_HANDSHAKE_SECONDS = 120.0
"""A handshake needs no training: a site that does not answer it in time is left out for now."""
_ASK_AGAIN_SECONDS = 300.0
"""Waiting for a handshake costs a round some seconds."""
_HANDSHAKE_EACH = 1.0
"""Seconds for each site at least: a simulation's sites answer one after the other."""


class AcceptedSites:
    """The sites that fit a run, and the way to them.

    Parameters
    ----------
    plan : RunPlan
    transport : Transport
    log : RunLog
    tell : callable
        Shows whoever watches a step's name, a message, and whether the step is done; by keyword
        ``waiting`` (names of sites) and ``left`` (seconds).
    times : StepTimes, optional
        Is told how long sites were at work, and how long they were waited for beside that.
    """

    def __init__(
        self,
        plan: RunPlan,
        transport: Transport,
        log: RunLog,
        tell: Tell,
        times: StepTimes | None = None,
    ) -> None:
        self._plan = plan
        self._transport = transport
        self._log = log
        self._tell = tell
        self._times = times or StepTimes()
        self._nodes: dict[str, str] = {}
        self._reported: dict[str, HandshakeReply] = {}
        self._left_out: dict[str, tuple[str, float]] = {}
        """Nodes that do not fit: why, and when (monotonic) they are asked again."""

    def reported_by(self, site: str) -> HandshakeReply:
        """What a site said of itself at the handshake."""
        return self._reported[site]

    def handshake(self, known: Collection[str]) -> tuple[str, ...]:
        """Ask every connected node who it is; leave out, by name, those that do not fit.

        Returns the sites of the run: those that fit, and the ``known`` ones of an earlier start.
        """
        nodes = self._wait_for_nodes()
        # A site that trained for the process before answers when it has done so.
        patience = self._plan.deadline if known else _HANDSHAKE_SECONDS
        self._admit(nodes, patience)
        if not self._nodes:
            raise QuorumMissed(
                f"none of {len(nodes)} connected sites fits the run; see 'fedqana runs show "
                f"{self._plan.run}' for the reason of each, then resume"
            )
        for absent in sorted(set(known) - set(self._nodes)):
            self._log.event("site-missing", "took part before, is not connected now", site=absent)
        self._tell("handshake", f"{len(self._nodes)} sites: {_named(self._nodes)}", True)
        return self.still_members({*known, *self._nodes})

    def newcomers(self) -> tuple[str, ...]:
        """Names of sites that have connected since the last handshake and fit the run.

        Sites approved while the run goes on, those that were away when it was resumed, and those
        that did not fit some minutes ago: a policy may allow it now, a disk may have space again.
        """
        online = self._transport.nodes()
        registered = self._transport.registered()
        if registered is not None:  # a site with a new key is another node
            gone = [name for name, node in self._nodes.items() if registered.get(node) != name]
            for name in gone:
                del self._nodes[name]
        # Who comes back may have been mended.
        self._left_out = {n: why for n, why in self._left_out.items() if n in set(online)}
        taking_part, now = set(self._nodes.values()), time.monotonic()
        nodes = [
            node
            for node in online
            if node not in taking_part and self._left_out.get(node, ("", 0.0))[1] <= now
        ]
        before = set(self._nodes)
        if nodes:
            self._admit(nodes, _HANDSHAKE_SECONDS)
        return tuple(sorted(set(self._nodes) - before))

    def still_members(self, sites: Collection[str]) -> tuple[str, ...]:
        """Those of ``sites`` that were not revoked; all of them in a simulation.

        QuorumMissed where there is none.
        """
        registered = self._transport.registered()
        members = set(sites) if registered is None else set(registered.values())
        found = tuple(sorted(members & set(sites)))
        if not found:
            raise QuorumMissed(
                f"no site takes part any more; approve sites, then resume the run {self._plan.run}"
            )
        return found

    def _admit(self, nodes: list[str], patience: float) -> None:
        """Ask nodes who they are; keep those that fit the run, leave out the others by name."""
        classes = ClassMap(self._plan.classes)
        ask = HandshakeAsk(
            protocol=PROTOCOL,
            run=self._plan.run,
            classes=self._plan.classes,
            config=self._plan.config,
        )
        deadline = min(self._plan.deadline, max(patience, _HANDSHAKE_EACH * len(nodes)))
        asks = {n: Instruction("handshake", ask) for n in nodes}
        deliveries = self._exchange(asks, "handshake", deadline)
        expected_hash = model_hash(self._plan.config, len(classes))
        registered = self._transport.registered()
        for node in nodes:
            name = registered.get(node, f"node {node}") if registered else f"node {node}"
            reply = None
            try:
                reply = parsed(_answer(deliveries.get(node), deadline), HandshakeReply)
                if registered is not None and reply.site != name:
                    raise SiteRefused("other-name", f"it calls itself {reply.site!r}")
                if reply.site in self._nodes:  # the first one keeps the name and its record
                    raise SiteRefused("duplicate", f"another node is {reply.site!r} already")
                name = reply.site
                check_handshake(reply, classes, expected_hash, self._plan.crop)
            except SiteRefused as error:
                # Who did not answer, or for whom the engine did, may answer with the next round.
                if error.code != "missing" and not error.code.startswith("engine-error"):
                    again = time.monotonic() + _ASK_AGAIN_SECONDS
                    before, self._left_out[node] = self._left_out.get(node), (error.code, again)
                    if before is not None and before[0] == error.code:
                        continue
                self._log.event("site-left-out", f"{name}: {error}", site=name)
                self._log.site(name, reply, f"{error.code}: {error}")
                continue
            self._left_out.pop(node, None)
            self._nodes[name] = node
            self._reported[name] = reply
            self._log.site(name, reply)

    def _wait_for_nodes(self) -> list[str]:
        patience = min(self._plan.gather, self._plan.deadline)
        deadline = time.monotonic() + patience
        while True:
            nodes = self._transport.nodes()
            registered = self._transport.registered()
            # Some may have been revoked since the run was planned.
            known = self._plan.expected_sites if registered is None else len(registered)
            if len(nodes) >= min(known, self._plan.expected_sites) or time.monotonic() > deadline:
                break
            time.sleep(_WAIT_FOR_NODES)
        if not nodes:
            raise QuorumMissed(
                f"no site connected within {patience:.0f} s; start the sites, then "
                f"resume the run {self._plan.run}"
            )
        return nodes

    def quorum(self, sites: Collection[str]) -> int:
        """How many of ``sites`` must deliver for a round to count."""
        return math.ceil(self._plan.quorum * len(sites))

    def require_quorum(
        self, replies: Collection[str], sites: Collection[str], round_number: int, what: str
    ) -> None:
        """QuorumMissed, with the names of those that are missing, below the quorum."""
        needed = self.quorum(sites)
        if len(replies) < needed:
            silent = _named(set(sites) - set(replies))
            raise QuorumMissed(
                f"round {round_number}: {len(replies)} of {len(sites)} sites delivered a "
                f"usable {what}, {needed} are needed; missing: {silent}; see 'fedqana runs "
                f"show {self._plan.run}', then resume"
            )

    def ask(
        self,
        step: Kind,
        round_number: int,
        instructions: Mapping[str, Instruction],
        check: Callable[[str, Answer], T],
        compare: Callable[[Mapping[str, T]], Mapping[str, SiteRefused]] = lambda found: {},
    ) -> dict[str, T]:
        """Exchange one step with the sites and keep what stands up to ``check``.

        ``compare`` then looks at what all of them sent, and refuses some of it.
        """
        online = set(self._transport.nodes())
        nodes = {
            self._nodes[site]: instruction
            for site, instruction in instructions.items()
            if self._nodes.get(site) in online
        }
        started = time.monotonic()
        deliveries = self._exchange(nodes, step, self._plan.deadline)
        taken = time.monotonic() - started
        usable: dict[str, T] = {}
        refused: dict[str, SiteRefused] = {}
        registered = self._transport.registered()
        for site in sorted(instructions):
            try:
                if registered is not None and site not in registered.values():
                    raise SiteRefused("revoked", "the site was revoked meanwhile")
                if self._nodes.get(site) not in online:
                    raise SiteRefused("not-connected", "the site is not connected")
                answer = _answer(deliveries.get(self._nodes[site]), self._plan.deadline)
                usable[site] = check(site, answer)
            except SiteRefused as error:
                refused[site] = error
        at_work = busy(
            (max(started, delivery.at - seconds_of(usable[site])), delivery.at)
            for site in usable
            if (delivery := deliveries.get(self._nodes.get(site, ""))) is not None
        )
        self._times.add(SITES, at_work)
        self._times.add(TRANSPORT, taken - at_work)
        for site, unlike in compare(usable).items():
            refused[site] = unlike
            del usable[site]
        for site in sorted(instructions):
            delivery = deliveries.get(self._nodes.get(site, ""))
            reason = f"{refused[site].code}: {refused[site]}" if site in refused else ""
            if reason:
                self._log.event("reply-refused", f"{step}: {reason}", round_number, site)
            self._log.site_result(round_number, site, step, delivery, usable.get(site), reason)
        return usable

    def _exchange(
        self, instructions: Mapping[str, Instruction], step: str, deadline: float
    ) -> dict[str, Delivery]:
        names = {node: site for site, node in self._nodes.items()}
        if (registered := self._transport.registered()) is not None:
            names = {**registered, **names}

        def late(missing: list[str], left: float) -> None:
            waiting = [names.get(node, node) for node in missing]
            text = f"waiting for {_named(waiting)}, {left:.0f} s left"
            self._tell(step, text, False, waiting=tuple(waiting), left=left)

        return self._transport.exchange(instructions, deadline, late)


def _named(sites: Collection[str]) -> str:
    """Sites' names in order, of many the first ones and how many more."""
    names = sorted(sites)
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _answer(delivery: Delivery | None, deadline: float) -> Answer:
    """The answer within a delivery; SiteRefused where there is none."""
    if delivery is None:
        raise SiteRefused("missing", f"no reply within {deadline:.0f} s")
    if delivery.answer is None:
        raise SiteRefused(delivery.problem, f"the reply is not usable ({delivery.problem})")
    return delivery.answer
