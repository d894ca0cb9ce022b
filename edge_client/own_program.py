"""Whether a site serves a version as it came or one of its own, fine-tuned here."""

import logging
from collections.abc import Collection, Sequence

from common.akida_runtime import Program
from common.bundle import PROGRAM, QUANTIZED, Bundle
from common.errors import FedqanaError
from common.messages import DeployAsk
from common.qana.convert import convert
from edge_client.case_journal import CaseJournal, LabelledCase
from edge_client.fine_tuning import fine_tune
from edge_client.policy import read_policy
from edge_client.reporting import judged_on
from edge_client.run_rounds import rounds_of
from edge_client.site import SiteData, SiteFolder, relabelled
from edge_client.state_lock import state_in_use
from edge_client.training_cases import training_cases
from edge_client.training_progress import TrainingProgress
from edge_client.training_time import allowed_training
from edge_client.versions import VersionFolder

log = logging.getLogger("fedqana.site")

LACKS_CLASSES = "the site has cases of a class that the version lacks"


def own_program(
    ask: DeployAsk, bundle: Bundle, folder: SiteFolder, data: SiteData
) -> Program | None:
    """The program of the version fine-tuned for the site, where that was asked for and is better.

    None also where the policy does not allow it now, where there is nothing to train on or to
    judge by, where the site has cases of a class that the version lacks (`lacks_classes`), and
    where it fails: the program that came serves as well. Asked again after it was put into
    service, it is the same, whatever the policy says by then.

    Takes minutes, so the folder's lock is not held meanwhile: the hospital's service goes on.
    """
    if ask.fine_tuning is None:
        return None
    policy, card = read_policy(folder.path), bundle.card
    rounds = rounds_of(folder, ask.run)
    number = rounds.number(ask.round)
    known = _put_into_service(folder, rounds.version(ask.version), number, card.sha256[PROGRAM])
    if known is not None:
        return known
    journal = CaseJournal(folder.state / "cases.journal", read_only=True)
    arrived = data.arriving(ask.round, set(), number)
    validation = relabelled(judged_on(data), data.classes, card.classes)
    why = ""
    if not policy.training.fine_tune:
        why = "the policy says fine_tune = false"
    elif lacks_classes(card.classes, journal, number, arrived, data):
        why = LACKS_CLASSES
    elif not len(validation):
        why = "there is no validation case to judge by"
    if why:
        log.info("version %d is not fine-tuned here: %s", card.version, why)
        return None
    asked = ask.fine_tuning.model_copy(
        update={
            "run": ask.run,
            "round": ask.round,
            "phase": "qat",
            "classes": card.classes,
            "config": card.config,
            "class_prior": (),
            "epochs": policy.training.epochs(ask.fine_tuning.epochs),
        }
    )
    try:
        with allowed_training(folder.path, policy.training):
            cases = training_cases(asked, folder, data)
            if not len(cases):
                log.info("version %d is not fine-tuned here: no case to train on", card.version)
                return None
            found = fine_tune(
                asked,
                bundle.weights(QUANTIZED),
                cases,
                validation,
                policy.answers.by_symmetries(ask.all_symmetries),
                TrainingProgress(folder.path, asked, "fine-tuning").epoch,
            )
            own = None
            if found.is_better:
                own = convert(found.weights, card.config, len(card.classes))
    except FedqanaError as error:
        log.warning("version %d is not fine-tuned here: %s", card.version, error)
        return None
    except Exception:  # whatever it is, the site gets the version
        log.exception("version %d is not fine-tuned here", card.version)
        return None
    log.info(
        "version %d fine-tuned: balanced accuracy %.3f on %d validation cases instead of %.3f; %s",
        *(card.version, found.after, len(validation), found.before),
        "the program that came is served" if own is None else "its own is better",
    )
    return own


def lacks_classes(
    classes: Collection[str],
    journal: CaseJournal,
    number: int,
    arrived: Sequence[LabelledCase],
    data: SiteData,
) -> bool:
    """Whether the site has cases of a class that is not among a version's.

    What its chip learns of such a class is shared with the other sites, for the program that all
    of them serve. ``number`` is the site's round, whose ``arrived`` cases come on top of the
    journal's of the rounds before.
    """
    codes = {case.code for case in journal.facts(number - 1)}
    codes |= {case.code for case in arrived}
    codes |= {data.classes.codes[label] for label in set(data.train.labels.tolist())}
    return bool(codes - set(classes))


def _put_into_service(
    folder: SiteFolder, version: str, number: int, made_of: str
) -> Program | None:
    """The site's own program of the same version and round, where it was installed before."""
    with state_in_use(folder.state, shared=True):
        versions = VersionFolder(folder.state)
        if version not in versions.names():
            return None
        try:
            report = versions.report(version)
            if (report.round, report.made_of, report.switched) != (number, made_of, True):
                return None
            return Program.from_bytes(versions.read(version, "program.fbz"))
        except FedqanaError as error:
            log.warning("the version is made anew: %s", error)
            return None
