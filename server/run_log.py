"""What a run writes into the history, in the terms of the round loop."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel

from common.bundle import Bundle, software_versions
from common.errors import RunNotFound
from common.files import sha256_of
from common.messages import DeployReply, HandshakeReply, Kind
from common.score_counts import ScoreCounts
from server.checkpoint import RunState, steps_of_round
from server.history.records import EdgeUpdate, ModelVersion, Round, Run, Site, SiteResult
from server.history.store import History
from server.plan import RunPlan
from server.transport import Delivery


class RunLog:
    """The history of one run; every write can be repeated when a step is done again.

    Parameters
    ----------
    history : History
    plan : RunPlan
    """

    def __init__(self, history: History, plan: RunPlan) -> None:
        self._history = history
        self._plan = plan

    def begin(self, data: str, folder: Path) -> None:
        """A new run; ``data`` is what its data is called."""
        plan = self._plan
        self._history.save_run(
            Run(
                run_id=plan.run,
                created_at=datetime.now(UTC),
                state="running",
                seed=plan.seed,
                strategy=plan.strategy,
                data=data,
                folder=str(folder),
                classes=plan.classes,
                plan=plan.model_dump(mode="json"),
                software=software_versions(),
            )
        )
        self.event("started", f"{plan.rounds} rounds of {plan.strategy}")

    def resume(self, state: RunState) -> None:
        """The run goes on; RunNotFound where this history does not know it."""
        self.go_on()
        self.event("resumed", f"at step {state.step}", state.round)

    def go_on(self) -> None:
        """Set the run's state to running again."""
        stored = self._stored()
        self._history.save_run(replace(stored, state="running", finished_at=None, reason=""))

    def finish(self, state: str, reason: str = "") -> None:
        """The run's end: finished, stopped (can be resumed) or failed (a bug)."""
        self._history.finish_run(self._plan.run, state, reason)
        if state == "finished":
            self.event("finished", f"{self._plan.rounds} rounds")

    def is_finished(self) -> bool:
        """Whether the history has the run's end."""
        return self._stored().state == "finished"

    def _stored(self) -> Run:
        """The run itself: a history looks for beginnings of ids too, which other runs may have."""
        if not self._history.has_run(self._plan.run):
            raise RunNotFound(
                f"the history does not know the run {self._plan.run}; give the --database or --out "
                "that it was started with"
            )
        return self._history.get_run(self._plan.run)

    def event(
        self, kind: str, message: str, round_number: int | None = None, site: str | None = None
    ) -> None:
        """One line of the trail."""
        self._history.add_event(self._plan.run, kind, message, round_number, site)

    def site(self, name: str, reply: HandshakeReply | None, reason: str = "") -> None:
        """A site at the handshake; ``reason`` says why it was left out, empty if it was not."""
        self._history.save_site(
            Site(
                run_id=self._plan.run,
                name=name,
                accepted=not reason,
                reason=reason,
                n_train=reply.n_train if reply else 0,
                n_validation=reply.n_validation if reply else 0,
                n_test=reply.n_test if reply else 0,
            )
        )

    def round(self, state: RunState) -> None:
        """The round as far as it has come; finished once its last step is done."""
        steps = steps_of_round(self._plan.deploys(state.round))
        self._history.save_round(
            Round(
                run_id=self._plan.run,
                number=state.round,
                phase=self._plan.phase(state.round),
                started_at=datetime.fromisoformat(state.started_at),
                finished_at=datetime.now(UTC) if state.step == steps[-1] else None,
                sites_asked=len(state.sites),
                sites_aggregated=state.aggregated,
                seconds=dict(state.seconds),
            )
        )

    def site_result(
        self,
        round_number: int,
        site: str,
        step: Kind,
        delivery: Delivery | None,
        checked: object,
        reason: str,
    ) -> None:
        """What a site delivered in a step, or the reason why nothing of it was used.

        ``checked`` is the validated reply, or a tuple that begins with it.
        """
        message = _message(checked)
        self._history.save_site_result(
            SiteResult(
                run_id=self._plan.run,
                round=round_number,
                site=site,
                step=step,
                accepted=not reason,
                reason=reason,
                seconds=seconds_of(checked),
                bytes_down=delivery.bytes_down if delivery else 0,
                bytes_up=delivery.bytes_up if delivery else 0,
                result=_kept(step, message),
            )
        )

    def version(self, bundle: Bundle, folder: Path) -> None:
        """A model version and, where it fits a device not, which layer is the reason."""
        card = bundle.card
        self._history.save_model_version(
            ModelVersion(
                run_id=self._plan.run,
                version=card.version,
                phase=card.phase,
                created_at=datetime.now(UTC),
                folder=str(folder),
                card_sha256=sha256_of(card.to_bytes()),
                fit=card.fit,
                metrics=card.metrics,
            )
        )
        for device, report in card.fit.items():
            if not report["fits"]:
                self.event("does-not-fit", f"{device}: {report['reason']}", card.version)

    def deployment_begins(self, round_number: int) -> None:
        """A round's deployment begins, perhaps again: what it reported before counts no more."""
        self._history.clear_edge_updates(self._plan.run, round_number)

    def edge_update(
        self, round_number: int, site: str, reply: DeployReply, heads: Mapping[str, ScoreCounts]
    ) -> None:
        """What a site's edge client did with the round's version; ``heads`` by registry index."""
        result = reply.model_dump(mode="json", exclude={"heads", "neurons"})
        for moment in ("old_before", "old_after", "new_before", "new_after"):
            correct, n = getattr(reply, moment)
            result[moment] = {"correct": correct, "n": n}
        self._history.save_edge_update(
            EdgeUpdate(
                run_id=self._plan.run,
                round=round_number,
                site=site,
                version=round_number,
                switched=reply.switched,
                reason=reply.reason,
                cases_learned=reply.cases_learned,
                result={**result, **{head: counts.to_json() for head, counts in heads.items()}},
            )
        )
        if not reply.switched:
            kept = f"version {reply.in_service}: {reply.reason}"
            self.event("kept-old-version", kept, round_number, site)

    def classes(self, codes: tuple[str, ...]) -> None:
        """The run's class registry as it is now."""
        self._history.set_classes(self._plan.run, codes)


def seconds_of(checked: object) -> float:
    """How long a site says that it worked for a checked reply; 0 for none."""
    return float(getattr(_message(checked), "seconds", 0.0))


def _message(checked: object) -> object:
    """The validated reply, which a tuple of a reply and what came with it begins with."""
    return checked[0] if isinstance(checked, tuple) else checked


def _kept(step: Kind, message: object) -> dict[str, object]:
    """What the history keeps of a step's reply; deployments are kept as edge updates."""
    if not isinstance(message, BaseModel) or step == "deploy":
        return {}
    values = message.model_dump(mode="json")
    if step == "evaluate":
        return {"global": values["counts"]}
    if step == "final":
        return {**values["heads"], "agreement": values["agreement"]}
    return values
