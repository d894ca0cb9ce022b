"""The round loop: handshake, then train, evaluate, bundle and deploy, a checkpoint after each.

Free of any engine: sites are reached through a `Transport`, everything learned of them is kept
in the `History`. A step can be done again from its checkpoint with the same outcome.
"""

import math
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TypeVar

from common.bundle import FLOAT, Bundle, load_bundle, save_bundle
from common.classes import ClassMap
from common.errors import FedqanaError, QuorumMissed, SiteRefused
from common.messages import (
    PROTOCOL,
    Answer,
    DeployAsk,
    DeployReply,
    EvaluateAsk,
    FinalAsk,
    HandshakeAsk,
    HandshakeReply,
    Instruction,
    Kind,
    TrainAsk,
)
from common.metrics import summarize
from common.qana.networks import initial_weights, model_hash
from common.qana.quantize import chain_names
from common.qana.weights import grow_head
from common.score_counts import ScoreCounts
from common.seeds import derive_seed
from server.checkpoint import DONE, FINAL, CheckpointFile, RunState
from server.class_registry import grow_moments, newly_met, registered_counts
from server.flower import aggregate
from server.history.store import History
from server.model_builder import build_bundle, combined_ranges, quantize_after_training
from server.plan import RunPlan
from server.progress import Progress, tell
from server.run_folder import RunFolder
from server.run_log import RunLog
from server.transport import Delivery, Transport
from server.validation import (
    check_deployment,
    check_evaluation,
    check_final,
    check_handshake,
    check_update,
    parsed,
)

T = TypeVar("T")
_TRAIN_ATTEMPTS = 2
_WAIT_FOR_NODES = 0.5


class Coordinator:
    """One run from its plan or its last checkpoint to its end.

    Parameters
    ----------
    plan : RunPlan
    data : str
        What the run's data is called in the history.
    folder : RunFolder
        Where checkpoint and model versions go.
    transport : Transport
    history : History
    """

    def __init__(
        self, plan: RunPlan, data: str, folder: RunFolder, transport: Transport, history: History
    ) -> None:
        self._plan = plan
        self._data = data
        self._folder = folder
        self._transport = transport
        self._log = RunLog(history, plan)
        self._checkpoint = CheckpointFile(folder.checkpoint)
        self._nodes: dict[str, str] = {}
        self._state = RunState(1, "train", plan.classes, {})

    def run(self) -> None:
        """Run to the end; an expected error is recorded as the run's reason and raised again."""
        saved = self._checkpoint.load()
        if saved is None:
            n_classes = len(self._plan.classes)
            weights = initial_weights(self._plan.config, n_classes, self._plan.seed)
            self._state.floating = weights
        else:
            self._state = saved
        if self._state.step == DONE:
            if not self._log.is_finished():  # killed between the last checkpoint and this line
                self._log.finish("finished")
            self._tell("done", "finished already", done=True)
            return
        try:
            if saved is None:
                self._log.begin(self._data, self._folder.path)
            else:
                self._log.resume(saved)
            self._handshake()
            self._go_on()
        except (FedqanaError, KeyboardInterrupt) as error:
            self._log.finish("stopped", str(error) or "interrupted")
            raise
        except Exception as error:
            self._log.finish("failed", type(error).__name__)
            raise
        self._log.finish("finished")

    def _go_on(self) -> None:
        steps: dict[str, Callable[[], str]] = {
            "train": self._train,
            "evaluate": self._evaluate,
            "bundle": self._bundle,
            "deploy": self._deploy,
            FINAL: self._final,
        }
        state = self._state
        while state.step != DONE:
            self._tell(state.step, "")
            started = time.perf_counter()
            state.started_at = state.started_at or datetime.now(UTC).isoformat()
            outcome = steps[state.step]()
            state.seconds[state.step] = round(time.perf_counter() - started, 3)
            if state.step != FINAL:
                self._log.round(state)
            self._tell(state.step, outcome, done=True)
            if state.step == FINAL:
                state.step = DONE
            else:
                state.advance()
                if state.round > self._plan.rounds:
                    state.round, state.step = self._plan.rounds, FINAL
            self._checkpoint.save(state)

    # -- before round 1 -----------------------------------------------------------------------

    def _handshake(self) -> None:
        """Ask every connected node who it is; leave out, by name, those that do not fit."""
        nodes = self._wait_for_nodes()
        classes = ClassMap(self._plan.classes)
        ask = HandshakeAsk(
            protocol=PROTOCOL,
            run=self._plan.run,
            classes=self._plan.classes,
            config=self._plan.config,
        )
        deliveries = self._exchange({n: Instruction("handshake", ask) for n in nodes}, "handshake")
        expected_hash = model_hash(self._plan.config, len(classes))
        for node in nodes:
            name, reply = f"node {node}", None
            try:
                reply = parsed(_answer(deliveries.get(node), self._plan.deadline), HandshakeReply)
                if reply.site in self._nodes:  # the first one keeps the name and its record
                    raise SiteRefused("duplicate", f"another node is {reply.site!r} already")
                name = reply.site
                check_handshake(reply, classes, expected_hash)
            except SiteRefused as error:
                self._log.event("site-left-out", f"{name}: {error}", site=name)
                self._log.site(name, reply, f"{error.code}: {error}")
                continue
            self._nodes[name] = node
            self._log.site(name, reply)
        if not self._nodes:
            raise QuorumMissed(
                f"none of {len(nodes)} connected sites fits the run; see 'fedqana runs show "
                f"{self._plan.run}' for the reason of each, then resume"
            )
        known = set(self._state.sites)
        for absent in sorted(known - set(self._nodes)):
            self._log.event("site-missing", "took part before, is not connected now", site=absent)
        self._state.sites = tuple(sorted(known | set(self._nodes)))
        self._tell("handshake", f"{len(self._nodes)} sites: {', '.join(sorted(self._nodes))}", True)

    def _wait_for_nodes(self) -> list[str]:
        deadline = time.monotonic() + self._plan.deadline
        while True:
            nodes = self._transport.nodes()
            if len(nodes) >= self._plan.expected_sites or time.monotonic() > deadline:
                break
            time.sleep(_WAIT_FOR_NODES)
        if not nodes:
            raise QuorumMissed(
                f"no site connected within {self._plan.deadline:.0f} s; start the sites, then "
                f"resume the run {self._plan.run}"
            )
        return nodes

    # -- the steps of a round -----------------------------------------------------------------

    def _train(self) -> str:
        plan, state = self._plan, self._state
        phase = plan.phase(state.round)
        current = state.floating if phase == "float" else state.quantized
        if phase == "qat" and state.round == plan.float_rounds + 1:
            state.strategy = {}  # moments of the float network mean nothing to the quantized one
        rate = plan.learning_rate_in(state.round)
        asks = {
            site: Instruction(
                "train",
                TrainAsk(
                    run=plan.run,
                    round=state.round,
                    phase=phase,
                    classes=state.classes,
                    config=plan.config,
                    epochs=plan.local_epochs,
                    batch=plan.batch,
                    learning_rate=rate,
                    prior_strength=plan.prior_strength if plan.balance == "prior" else 0.0,
                    proximal=plan.proximal if plan.strategy == "fedprox" else 0.0,
                    balance=plan.balance,
                    seed=derive_seed(plan.seed, "train", state.round, site),
                ),
                arrays=current,
            )
            for site in state.sites
        }
        shapes = {name: array.shape for name, array in current.items()}
        need = math.ceil(plan.quorum * len(state.sites))
        for attempt in range(1, _TRAIN_ATTEMPTS + 1):
            replies = self._ask("train", asks, lambda _, answer: check_update(answer, shapes))
            if len(replies) >= need:
                break
            self._log.event(
                "quorum-missed",
                f"{len(replies)} of {need} needed updates, attempt {attempt}",
                state.round,
            )
        else:
            silent = ", ".join(sorted(set(state.sites) - set(replies)))
            raise QuorumMissed(
                f"round {state.round}: {len(replies)} of {len(state.sites)} sites delivered a "
                f"usable update, {need} are needed; missing: {silent}; see 'fedqana runs show "
                f"{plan.run}', then resume"
            )
        updates = {site: (arrays, reply.examples) for site, (reply, arrays) in replies.items()}
        state.aggregated = len(updates)
        combined, state.strategy = aggregate(plan, state.round, current, updates, state.strategy)
        if phase == "float":
            state.floating = combined
        else:
            state.quantized = combined
        examples = sum(n for _, n in updates.values())
        loss = sum(r.loss * r.examples for r, _ in replies.values()) / examples
        return f"loss {loss:.3f} over {examples} cases of {len(replies)} sites"

    def _evaluate(self) -> str:
        plan, state = self._plan, self._state
        phase = plan.phase(state.round)
        calibrate = phase == "float"
        ask = EvaluateAsk(
            run=plan.run,
            round=state.round,
            phase=phase,
            classes=state.classes,
            config=plan.config,
            calibrate=calibrate,
        )
        weights = state.floating if calibrate else state.quantized
        n_layers = len(chain_names(plan.config))
        replies = self._ask(
            "evaluate",
            {site: Instruction("evaluate", ask, arrays=weights) for site in state.sites},
            lambda _, answer: check_evaluation(answer, len(state.classes), n_layers, calibrate),
        )
        if not replies:
            raise QuorumMissed(
                f"round {state.round}: no site delivered a usable evaluation; see 'fedqana runs "
                f"show {plan.run}', then resume"
            )
        if calibrate:
            state.ranges = combined_ranges(
                [(reply.ranges, reply.calibration_images) for reply, _ in replies.values()]
            )
            state.quantized = quantize_after_training(state.floating, state.ranges, plan.config)
        pooled = ScoreCounts.zeros(len(state.classes))
        for site in sorted(replies):
            pooled = pooled + replies[site][1]
        summary = summarize(pooled, state.classes)
        state.metrics = {"validation": summary.to_json(), "sites": sorted(replies)}
        return f"balanced accuracy {_shown(summary.balanced_accuracy.value)} ({pooled.n} cases)"

    def _bundle(self) -> str:
        state = self._state
        bundle = build_bundle(self._plan, state)
        folder = self._folder.version(state.round)
        save_bundle(bundle, folder)
        self._log.version(bundle, folder)
        fits = [name for name, report in bundle.card.fit.items() if report["fits"]]
        size = len(bundle.files["program.fbz"]) // 1024
        return f"program {size} KiB, fits {' and '.join(fits) or 'no device'}"

    def _deploy(self) -> str:
        plan, state = self._plan, self._state
        bundle = load_bundle(self._folder.version(state.round))
        layers = chain_names(plan.config)
        replies = self._ask(
            "deploy",
            {
                site: Instruction(
                    "deploy",
                    DeployAsk(
                        run=plan.run,
                        round=state.round,
                        version=state.round,
                        original_classes=len(plan.classes),
                        seed=derive_seed(plan.seed, "deploy", site),
                    ),
                    files=_files_for_sites(bundle),
                )
                for site in state.sites
            },
            lambda _, answer: check_deployment(answer, state.classes, state.round, layers),
        )
        before = state.classes
        self._register_classes(replies)
        for site, reply in sorted(replies.items()):
            heads = registered_counts(reply, before, state.classes)
            self._log.edge_update(state.round, site, reply, heads)
        kept = sorted(site for site, reply in replies.items() if not reply.switched)
        learned = sum(reply.cases_learned for reply in replies.values())
        text = f"{len(replies)} sites, {learned} new cases learned on the chip"
        return text + (f"; kept the old version: {', '.join(kept)}" if kept else "")

    def _final(self) -> str:
        plan, state = self._plan, self._state
        bundle = load_bundle(self._folder.version(state.round))
        ask = FinalAsk(
            run=plan.run,
            round=state.round,
            classes=state.classes,
            seed=derive_seed(plan.seed, "final"),
        )
        files = {**_files_for_sites(bundle), FLOAT: bundle.files[FLOAT]}
        replies = self._ask(
            "final",
            {site: Instruction("final", ask, files=files) for site in state.sites},
            lambda _, answer: check_final(answer, len(state.classes)),
        )
        if not replies:
            raise QuorumMissed(
                f"no site delivered a usable final evaluation; see 'fedqana runs show {plan.run}', "
                "then resume"
            )
        pooled = ScoreCounts.zeros(len(state.classes))
        for site in sorted(replies):
            pooled = pooled + ScoreCounts.from_json(replies[site].heads["akida"])
        summary = summarize(pooled, state.classes)
        shown = _shown(summary.balanced_accuracy.value)
        return f"balanced accuracy of the Akida program {shown} ({pooled.n} test cases)"

    # -- helpers ------------------------------------------------------------------------------

    def _register_classes(self, replies: Mapping[str, DeployReply]) -> None:
        """Give every newly reported class its index and the network an output for it."""
        state = self._state
        for code, site in newly_met(state.classes, replies):
            text = f"{code!r} gets index {len(state.classes)}"
            state.classes = (*state.classes, code)
            self._log.event("class-registered", text, state.round, site)
        n_classes = len(state.classes)
        self._log.classes(state.classes)
        state.floating = grow_head(state.floating, n_classes)
        state.quantized = grow_head(state.quantized, n_classes)
        state.strategy = grow_moments(state.strategy, n_classes)

    def _ask(
        self,
        step: Kind,
        instructions: Mapping[str, Instruction],
        check: Callable[[str, Answer], T],
    ) -> dict[str, T]:
        """Exchange one step with the sites and keep what stands up to ``check``.

        Every site's outcome goes into the history; a site that did not answer is named.
        """
        online = set(self._transport.nodes())
        nodes = {
            self._nodes[site]: instruction
            for site, instruction in instructions.items()
            if self._nodes.get(site) in online
        }
        deliveries = self._exchange(nodes, step)
        usable: dict[str, T] = {}
        for site in sorted(instructions):
            delivery = deliveries.get(self._nodes.get(site, ""))
            reason = ""
            checked: T | None = None
            try:
                if self._nodes.get(site) not in online:
                    raise SiteRefused("not-connected", "the site is not connected")
                answer = _answer(delivery, self._plan.deadline)
                checked = check(site, answer)
                usable[site] = checked
            except SiteRefused as error:
                reason = f"{error.code}: {error}"
                self._log.event("reply-refused", f"{step}: {reason}", self._state.round, site)
            self._log.site_result(self._state.round, site, step, delivery, checked, reason)
        return usable

    def _exchange(self, instructions: Mapping[str, Instruction], step: str) -> dict[str, Delivery]:
        names = {node: site for site, node in self._nodes.items()}

        def late(missing: list[str], left: float) -> None:
            waiting = ", ".join(names.get(node, node) for node in missing)
            self._tell(step, f"waiting for {waiting}, {left:.0f} s left")

        return self._transport.exchange(instructions, self._plan.deadline, late)

    def _tell(self, step: str, message: str, done: bool = False) -> None:
        plan, state = self._plan, self._state
        tell(
            Progress(
                plan.run, state.round, plan.rounds, plan.phase(state.round), step, message, done
            )
        )


def _files_for_sites(bundle: Bundle) -> dict[str, bytes]:
    """What a site gets of a bundle: card, program and quantized weights, not the float ones."""
    files = {name: content for name, content in bundle.files.items() if name != FLOAT}
    return {**files, "card.json": bundle.card.to_bytes()}


def _answer(delivery: Delivery | None, deadline: float) -> Answer:
    """The answer within a delivery; SiteRefused where there is none."""
    if delivery is None:
        raise SiteRefused("missing", f"no reply within {deadline:.0f} s")
    if delivery.answer is None:
        raise SiteRefused(delivery.problem, f"the reply is not usable ({delivery.problem})")
    return delivery.answer


def _shown(value: float | None) -> str:
    return "too few cases" if value is None else f"{value:.3f}"
