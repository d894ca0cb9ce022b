"""Putting a chosen model version into service at all sites, outside a run's rounds.

To a site a delivery is a run of one deployment: it judges the version by its own rule and answers
what it did. It has a folder, a log and a record in the history as any run.
"""

from pathlib import Path

from common.bundle import load_bundle
from common.errors import FedqanaError, QuorumMissed, SiteRefused
from common.messages import Answer, DeployAsk, DeployReply, Instruction
from common.qana.quantize import chain_names
from common.seeds import derive_seed
from server.accepted_sites import AcceptedSites
from server.bundle_delivery import files_for_sites
from server.delivery_order import Delivered
from server.history.store import History
from server.plan import RunPlan
from server.progress import Progress, tell
from server.run_folder import RunFolder
from server.run_log import RunLog
from server.train_ask import fine_tuning_ask
from server.transport import Transport
from server.validation import check_deployment

_ROUND = 1


def deliver(
    folder: RunFolder,
    delivered: Delivered,
    transport: Transport,
    history: History,
    bundle_key: bytes,
) -> None:
    """Deliver a version to all connected sites and record what each did with it.

    Done again after a crash, sites answer as before: an installation can be repeated.
    """
    stored = folder.stored_plan()
    plan = stored.plan
    log = RunLog(history, plan)
    if not history.has_run(plan.run):
        log.begin(stored.data, folder.path)
    elif log.is_finished():
        return
    else:
        log.go_on()
    try:
        outcome = _deliver(plan, delivered, transport, log, bundle_key)
    except FedqanaError as error:
        log.finish("stopped", str(error))
        raise
    except Exception as error:
        log.finish("failed", type(error).__name__)
        raise
    log.finish("finished")
    _tell(plan, outcome, done=True)


def _deliver(
    plan: RunPlan, delivered: Delivered, transport: Transport, log: RunLog, bundle_key: bytes
) -> str:
    def show(
        step: str,
        message: str,
        done: bool,
        waiting: tuple[str, ...] = (),
        left: float | None = None,
    ) -> None:
        _tell(plan, message, step, done, waiting, left)

    bundle = load_bundle(Path(delivered.folder))
    sites = AcceptedSites(plan, transport, log, show)
    names = sites.handshake(())
    files = files_for_sites(bundle, bundle_key)
    original = len(plan.classes)
    refusals: dict[str, str] = {}

    def check(site: str, answer: Answer) -> DeployReply:
        try:
            return check_deployment(
                answer,
                bundle.card.classes,
                _ROUND,
                chain_names(plan.config),
                sites.reported_by(site).n_validation,
            )
        except SiteRefused as error:
            refusals[site] = error.code
            raise

    replies = sites.ask(
        "deploy",
        _ROUND,
        {
            site: Instruction(
                "deploy",
                DeployAsk(
                    run=plan.run,
                    round=_ROUND,
                    version=_ROUND,
                    original_classes=original,
                    seed=derive_seed(plan.seed, "deploy", site),
                    all_symmetries=plan.by_symmetries(plan.rounds),  # as with a run's last
                    fine_tuning=fine_tuning_ask(plan, _ROUND, bundle.card.classes, site),
                ),
                files=files,
            )
            for site in names
        },
        check,
    )
    if not replies and not refusals:  # who refused would do so again
        raise QuorumMissed(
            f"no site answered the delivery of {delivered.run}:{delivered.version}; see 'fedqana "
            f"rounds status {plan.run}'"
        )
    log.deployment_begins(_ROUND)
    for site, reply in sorted(replies.items()):
        log.edge_update(_ROUND, site, reply, {})
    switched = sorted(site for site, reply in replies.items() if reply.switched)
    kept = sorted(site for site, reply in replies.items() if not reply.switched)
    text = f"{delivered.run}:{delivered.version} in service at {', '.join(switched) or 'no site'}"
    own = [site for site in switched if replies[site].fine_tuned]
    text += f"; fine-tuned for themselves: {', '.join(own)}" if own else ""
    text += f"; kept what they had: {', '.join(kept)}" if kept else ""
    refused = ", ".join(f"{site} ({code})" for site, code in sorted(refusals.items()))
    text += f"; refused by {refused}" if refused else ""
    approved = set((transport.registered() or {}).values())
    missed = sorted(approved - set(replies) - set(refusals))
    return text + (f"; not reached, promote it again for: {', '.join(missed)}" if missed else "")


def _tell(
    plan: RunPlan,
    message: str,
    step: str = "deploy",
    done: bool = False,
    waiting: tuple[str, ...] = (),
    left: float | None = None,
) -> None:
    tell(Progress(plan.run, _ROUND, _ROUND, "delivery", step, message, done, waiting, left))
