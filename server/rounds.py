"""The round loop: handshake, then train, evaluate, bundle and deploy, a checkpoint after each.

Free of any engine: sites are reached through a `Transport`, everything learned of them is kept
in the `History`. A step can be done again from its checkpoint with the same outcome.
"""

import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime

from common.bundle import FLOAT, PROGRAM, QUANTIZED, Bundle, load_bundle, save_bundle
from common.data.balance import pooled_class_shares
from common.errors import ConversionRefused, FedqanaError, SiteRefused
from common.messages import (
    Answer,
    DeployAsk,
    DeployReply,
    EvaluateAsk,
    FinalAsk,
    FinalHead,
    Instruction,
    ShareAsk,
    TrainReply,
)
from common.metrics import summarize
from common.neurons import NeuronSet
from common.qana.quantize import chain_names
from common.qana.weights import NamedWeights, grow_head, trained_part
from common.score_counts import ScoreCounts
from common.seeds import derive_seed
from common.update_reach import optimizer_steps
from server.accepted_sites import AcceptedSites
from server.averaging import with_next
from server.balancing import balanced
from server.bundle_delivery import files_for_sites, sign_folder
from server.checkpoint import DONE, FINAL, CheckpointFile, RunState, steps_of_round
from server.class_registry import grow_moments, newly_met, registered_counts
from server.flower import aggregate
from server.history.store import History
from server.model_builder import (
    build_bundle,
    combined_ranges,
    quantize_after_training,
    widest_ranges,
)
from server.neuron_exchange import collected
from server.plan import RunPlan
from server.progress import Progress, tell
from server.run_folder import RunFolder
from server.run_log import RunLog
from server.site_weights import weights_by_class
from server.step_times import CHECKPOINT, StepTimes
from server.train_ask import fine_tuning_ask, train_ask
from server.transport import Transport
from server.validation import (
    check_deployment,
    check_evaluation,
    check_final,
    check_share,
    check_update,
    outlying_statistics,
)

Update = tuple[TrainReply, NamedWeights]
_TRAIN_ATTEMPTS = 2


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
    bundle_key : bytes, optional
        Private Ed25519 key that model versions are signed with, PEM; sites of a deployed server
        take no others.
    """

    def __init__(
        self,
        plan: RunPlan,
        data: str,
        folder: RunFolder,
        transport: Transport,
        history: History,
        bundle_key: bytes | None = None,
    ) -> None:
        self._plan = plan
        self._data = data
        self._folder = folder
        self._bundle_key = bundle_key
        self._log = RunLog(history, plan)
        self._checkpoint = CheckpointFile(folder.checkpoint)
        self._state = RunState(1, "train", plan.classes, {})
        self._times = StepTimes()
        self._sites = AcceptedSites(plan, transport, self._log, self._tell, self._times)

    def run(self) -> None:
        """Run to the end; an expected error is recorded as the run's reason and raised again."""
        saved = self._checkpoint.load()
        self._state = saved or self._state
        if self._state.step == DONE:
            if not self._log.is_finished():  # killed between the last checkpoint and this line
                self._log.finish("finished")
            self._tell("done", "finished already", done=True)
            return
        try:
            if saved is None:
                self._log.begin(self._data, self._folder.path)
                n_classes = len(self._plan.classes)
                self._state.floating = self._folder.first_weights(self._plan, n_classes)
            else:
                self._log.resume(saved)
            self._state.sites = self._sites.handshake(self._state.sites)
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
            "share": self._share,
            FINAL: self._final,
        }
        state = self._state
        while state.step != DONE:
            self._tell(state.step, "")
            state.sites = self._sites.still_members(state.sites)
            started = time.perf_counter()
            state.started_at = state.started_at or datetime.now(UTC).isoformat()
            outcome = steps[state.step]()
            state.seconds |= self._times.finished(state.step, time.perf_counter() - started)
            if state.step != FINAL:
                self._log.round(state)
            self._tell(state.step, outcome, done=True)
            if state.step == FINAL:
                state.step = DONE
            else:
                state.advance(steps_of_round(self._plan.deploys(state.round)))
                if state.round > self._plan.rounds:
                    state.round, state.step = self._plan.rounds, FINAL
            started = time.perf_counter()
            self._checkpoint.save(state)
            saving = state.seconds.get(CHECKPOINT, 0.0) + time.perf_counter() - started
            state.seconds[CHECKPOINT] = round(saving, 3)  # the last one counts for the next round

    # -- the steps of a round -----------------------------------------------------------------

    def _train(self) -> str:
        plan, state = self._plan, self._state
        newcomers = self._sites.newcomers()
        state.sites = self._sites.still_members({*state.sites, *newcomers})
        phase = plan.phase(state.round)
        current = state.floating if phase == "float" else state.quantized
        if phase == "qat" and state.round == plan.float_rounds + 1:
            state.strategy = {}  # moments of the float network mean nothing to the quantized one
        ask_of = {site: train_ask(plan, state, site) for site in state.sites}
        teacher = trained_part(state.floating) if phase == "qat" and plan.distillation else {}
        asks = {
            site: Instruction("train", ask, arrays=current, teacher=teacher)
            for site, ask in ask_of.items()
        }

        def check(site: str, answer: Answer) -> Update:
            n_cases = self._sites.reported_by(site).n_train + state.learned.get(site, 0)
            return check_update(answer, current, ask_of[site], n_cases)

        def compare(found: Mapping[str, Update]) -> dict[str, SiteRefused]:
            weights = {
                site: (arrays, optimizer_steps(ask_of[site], reply.examples))
                for site, (reply, arrays) in found.items()
            }
            unlike = SiteRefused("outlier", "batch-norm statistics unlike all other sites'")
            return dict.fromkeys(outlying_statistics(weights, current), unlike)

        quorum = self._sites.quorum(state.sites)
        for attempt in range(1, _TRAIN_ATTEMPTS + 1):
            replies = self._sites.ask("train", state.round, asks, check, compare)
            if len(replies) >= quorum:
                break
            self._log.event(
                "quorum-missed",
                f"{len(replies)} of {quorum} needed updates, attempt {attempt}",
                state.round,
            )
        else:
            self._require_quorum(replies, "update")
        cases = {site: reply.examples for site, (reply, _) in replies.items()}
        weights: Mapping[str, float] = cases
        if plan.site_weights == "classes":
            weights = weights_by_class(cases, state.class_counts)
        updates = {site: (arrays, weights[site]) for site, (_, arrays) in replies.items()}
        state.aggregated = len(updates)
        state.counted.update(dict.fromkeys(updates, state.round))
        with self._times.part("combining"):
            combined, state.strategy = aggregate(
                plan, state.round, current, updates, state.strategy
            )
            combined = self._averaged(combined)
        if phase == "float":
            state.floating = combined
        else:
            state.quantized = combined
        examples = sum(cases.values())
        loss = sum(r.loss * r.examples for r, _ in replies.values()) / examples
        return f"loss {loss:.3f} over {examples} cases of {len(replies)} sites"

    def _averaged(self, combined: NamedWeights) -> NamedWeights:
        """What the round ends with: in a phase's last the mean of its last rounds' networks."""
        plan, state = self._plan, self._state
        if not plan.averages(state.round):
            return combined
        state.mean_network = with_next(state.mean_network, state.mean_rounds, combined)
        state.mean_rounds += 1
        if not plan.ends_phase(state.round):
            return combined
        mean = state.mean_network
        state.mean_network, state.mean_rounds = {}, 0
        return mean

    def _evaluate(self) -> str:
        plan, state = self._plan, self._state
        phase = plan.phase(state.round)
        weights = state.floating if phase == "float" else state.quantized
        if plan.balances(state.round):
            weights = balanced(weights, plan, state, self._sites, self._log)
            if phase == "float":
                state.floating = weights
            else:
                state.quantized = weights
        calibrate = phase == "float" and plan.deploys(state.round)
        ask = EvaluateAsk(
            run=plan.run,
            round=state.round,
            phase=phase,
            classes=state.classes,
            config=plan.config,
            calibrate=calibrate,
        )
        n_layers = len(chain_names(plan.config))
        replies = self._sites.ask(
            "evaluate",
            state.round,
            {site: Instruction("evaluate", ask, arrays=weights) for site in state.sites},
            lambda site, answer: check_evaluation(
                answer,
                len(state.classes),
                n_layers,
                calibrate,
                self._sites.reported_by(site).n_validation,
            ),
        )
        self._require_quorum(replies, "evaluation")
        if calibrate:
            state.ranges = combined_ranges(
                [(reply.ranges, reply.calibration_images) for reply, _ in replies.values()]
            )
            state.quantized = quantize_after_training(
                state.floating, state.ranges, plan.config, self._times
            )
        pooled = ScoreCounts.zeros(len(state.classes))
        for site in sorted(replies):
            pooled = pooled + replies[site][1]
            state.class_counts[site] = replies[site][1].confusion.sum(axis=1).tolist()
        state.class_prior = pooled_class_shares(pooled.confusion.sum(axis=1))
        summary = summarize(pooled, state.classes)
        state.metrics = {"validation": summary.to_json(), "sites": sorted(replies)}
        return f"balanced accuracy {_shown(summary.balanced_accuracy.value)} ({pooled.n} cases)"

    def _bundle(self) -> str:
        state = self._state
        try:
            bundle = build_bundle(self._plan, state, self._times)
        except ConversionRefused as error:
            # Nobody's fault that could be told: the run goes on from the last weights that did.
            self._log.event("round-discarded", str(error), state.round)
            self._go_back()
            bundle = build_bundle(self._plan, state, self._times)
        folder = self._folder.version(state.round)
        with self._times.part("saving"):
            save_bundle(bundle, folder)
            if self._bundle_key is not None:
                sign_folder(folder, self._bundle_key)
        self._log.version(bundle, folder)
        fits = [name for name, report in bundle.card.fit.items() if report["fits"]]
        size = len(bundle.files["program.fbz"]) // 1024
        return f"program {size} KiB, fits {' and '.join(fits) or 'no device'}"

    def _go_back(self) -> None:
        """Put the last version's weights, or the initial ones, in the place of this round's."""
        plan, state = self._plan, self._state
        n_classes = len(state.classes)
        # They remember the step that led astray.
        state.strategy, state.counted = {}, {}
        state.mean_network, state.mean_rounds = {}, 0
        if version := plan.version_before(state.round):
            before = load_bundle(self._folder.version(version))
            floating, quantized = before.weights(FLOAT), before.weights(QUANTIZED)
            state.ranges, state.metrics = before.card.ranges, dict(before.card.metrics)
        else:
            floating = self._folder.first_weights(plan, n_classes)
            state.ranges, state.metrics = widest_ranges(plan.config), {}
            quantized = quantize_after_training(floating, state.ranges, plan.config)
        state.floating = grow_head(floating, n_classes)
        state.quantized = grow_head(quantized, n_classes)

    def _deploy(self) -> str:
        plan, state = self._plan, self._state
        bundle = load_bundle(self._folder.version(state.round))
        layers = chain_names(plan.config)
        replies = self._sites.ask(
            "deploy",
            state.round,
            {
                site: Instruction(
                    "deploy",
                    DeployAsk(
                        run=plan.run,
                        round=state.round,
                        version=state.round,
                        original_classes=len(plan.classes),
                        seed=derive_seed(plan.seed, "deploy", site),
                        all_symmetries=plan.by_symmetries(state.round),
                        fine_tuning=fine_tuning_ask(plan, state.round, bundle.card.classes, site)
                        if state.round == plan.rounds
                        else None,
                    ),
                    files=files_for_sites(bundle, self._bundle_key),
                )
                for site in state.sites
            },
            lambda site, answer: check_deployment(
                answer,
                state.classes,
                state.round,
                layers,
                self._sites.reported_by(site).n_validation,
            ),
        )
        self._log.deployment_begins(state.round)
        before = state.classes
        self._register_classes(replies)
        for site, reply in sorted(replies.items()):
            state.learned[site] = state.learned.get(site, 0) + reply.cases_learned
            heads = registered_counts(reply, before, state.classes)
            self._log.edge_update(state.round, site, reply, heads)
        state.neurons = self._collect_neurons(replies, bundle)
        kept = sorted(site for site, reply in replies.items() if not reply.switched)
        learned = sum(reply.cases_learned for reply in replies.values())
        text = f"{len(replies)} sites, {learned} new cases learned on the chip"
        own = sorted(site for site, r in replies.items() if r.switched and r.fine_tuned)
        text += f"; fine-tuned for themselves: {', '.join(own)}" if own else ""
        return text + (f"; kept the old version: {', '.join(kept)}" if kept else "")

    def _collect_neurons(self, replies: Mapping[str, DeployReply], bundle: Bundle) -> str:
        """The union of the sites' neurons of new classes as JSON, empty without any."""
        plan, state = self._plan, self._state
        union, refused = collected(
            {site: reply.neurons for site, reply in replies.items()},
            bundle.card.sha256[PROGRAM],
            plan.config.spikes,
            state.classes[len(plan.classes) :],
        )
        for site, error in refused.items():
            self._log.event("neurons-refused", str(error), state.round, site)
        if union is None:
            return ""
        text = f"{len(union.neurons)} of {', '.join(union.codes)}, {union.payload_bytes()} bytes"
        self._log.event("neurons-merged", text, state.round)
        return union.model_dump_json()

    def _share(self) -> str:
        """Hand the merged neurons to all sites, within the round and for its version only."""
        plan, state = self._plan, self._state
        if not state.neurons:
            return "no neurons of new classes"
        shared = NeuronSet.model_validate_json(state.neurons)
        asks = {
            site: Instruction(
                "share",
                ShareAsk(
                    run=plan.run,
                    round=state.round,
                    classes=state.classes,
                    original_classes=len(plan.classes),
                    neurons=shared,
                    seed=derive_seed(plan.seed, "deploy", site),
                ),
            )
            for site in state.sites
        }
        replies = self._sites.ask(
            "share",
            state.round,
            asks,
            lambda site, answer: check_share(
                answer, len(shared.neurons), self._sites.reported_by(site).n_validation
            ),
        )
        adopting = sorted(site for site, reply in replies.items() if reply.adopted)
        return f"neurons of {', '.join(shared.codes)} taken over by {len(adopting)} sites"

    def _final(self) -> str:
        plan, state = self._plan, self._state
        bundle = load_bundle(self._folder.version(state.round))
        ask = FinalAsk(
            run=plan.run,
            round=state.round,
            classes=state.classes,
            seed=derive_seed(plan.seed, "final"),
            all_symmetries=plan.by_symmetries(state.round),
        )
        files = {**files_for_sites(bundle, self._bundle_key), FLOAT: bundle.files[FLOAT]}
        replies = self._sites.ask(
            "final",
            state.round,
            {site: Instruction("final", ask, files=files) for site in state.sites},
            lambda site, answer: check_final(
                answer,
                len(state.classes),
                self._sites.reported_by(site).n_test,
                ask.all_symmetries,
            ),
        )
        self._require_quorum(replies, "final evaluation")

        def told(head: FinalHead) -> tuple[str, int]:
            pooled = ScoreCounts.zeros(len(state.classes))
            for site in sorted(replies):
                if head in replies[site].heads:  # a site without a program has no answers
                    pooled = pooled + ScoreCounts.from_json(replies[site].heads[head])
            return _shown(summarize(pooled, state.classes).balanced_accuracy.value), pooled.n

        program, cases = told("akida")
        both, judged = told("symmetries" if ask.all_symmetries else "combined")
        views = " by eight views" if ask.all_symmetries else ""
        fewer = "" if judged == cases else f", of both heads {judged}"
        return (
            f"balanced accuracy of the Akida program {program}, of both heads{views} {both} "
            f"({cases} test cases{fewer})"
        )

    # -- helpers ------------------------------------------------------------------------------

    def _register_classes(self, replies: Mapping[str, DeployReply]) -> None:
        """Give every newly reported class its index and the network an output for it."""
        state = self._state
        met = newly_met(state.classes, replies)
        if met:
            state.mean_network, state.mean_rounds = {}, 0  # of networks that lack the class
        for code, site in met:
            text = f"{code!r} gets index {len(state.classes)}"
            state.classes = (*state.classes, code)
            self._log.event("class-registered", text, state.round, site)
        n_classes = len(state.classes)
        self._log.classes(state.classes)
        state.floating = grow_head(state.floating, n_classes)
        state.quantized = grow_head(state.quantized, n_classes)
        state.strategy = grow_moments(state.strategy, n_classes)

    def _require_quorum(self, replies: Collection[str], what: str) -> None:
        self._sites.require_quorum(replies, self._state.sites, self._state.round, what)

    def _tell(
        self,
        step: str,
        message: str,
        done: bool = False,
        waiting: tuple[str, ...] = (),
        left: float | None = None,
    ) -> None:
        plan, state = self._plan, self._state
        phase = plan.phase(state.round)
        where = plan.run, state.round, plan.rounds, phase
        tell(Progress(*where, step, message, done, waiting, left))


def _shown(value: float | None) -> str:
    return "too few cases" if value is None else f"{value:.3f}"
