"""What a site does when the coordinator asks, free of any engine (programs: `deployment_tasks`).

Each task is a function of the site's data, its journal up to the round before, and the
instruction: asked again after a crash, it gives the same answer.
"""

import logging
import time
from collections.abc import Callable

import numpy as np

from common import __version__
from common.answers_by_class import answers_by_class
from common.errors import (
    BundleDamaged,
    DataError,
    DeviceError,
    FedqanaError,
    ModelDoesNotFit,
    SettingsError,
    SiteRefused,
    StateDamaged,
    StateInUse,
    StorageFull,
)
from common.messages import (
    PROTOCOL,
    Answer,
    BalanceAsk,
    BalanceReply,
    DeployAsk,
    EvaluateAsk,
    EvaluateReply,
    FinalAsk,
    HandshakeAsk,
    HandshakeReply,
    Instruction,
    ShareAsk,
    SiteCode,
    TrainAsk,
    TrainReply,
)
from common.metrics import ScoreCounts
from common.qana.fold import fold
from common.qana.networks import model_hash, network
from common.qana.quantize import CALIBRATION_IMAGES, observe_ranges
from common.seeds import derive_seed
from edge_client.case_journal import CaseJournal
from edge_client.deployment_tasks import deploy, final, share
from edge_client.policy import read_policy
from edge_client.reporting import objection_to_balancing, reported
from edge_client.run_rounds import rounds_of
from edge_client.site import SiteData, SiteFolder, relabelled
from edge_client.site_cache import SiteCache
from edge_client.training import train_as_asked
from edge_client.training_cases import training_cases
from edge_client.training_progress import TrainingProgress
from edge_client.training_time import allowed_training

log = logging.getLogger("fedqana.site")

_SITES = SiteCache()


def answer(instruction: Instruction, folder: SiteFolder) -> Answer:
    """Do what is asked; a failure becomes a code, its text stays in the site's own log."""
    tasks: dict[type, Callable[..., Answer]] = {
        HandshakeAsk: handshake,
        TrainAsk: train_if_allowed,
        BalanceAsk: balance,
        EvaluateAsk: evaluate,
        DeployAsk: deploy,
        ShareAsk: share,
        FinalAsk: final,
    }
    try:
        data = reported(_SITES.read(folder), read_policy(folder.path))
        return tasks[type(instruction.ask)](instruction, instruction.ask, folder, data)
    except SiteRefused as error:  # it has a code of its own, and is nobody's mistake here
        log.warning("%s: %s", instruction.kind, error)
        return Answer(error=_code(error))
    except Exception as error:  # whatever it is, the round goes on without this site
        if isinstance(error, FedqanaError) and not isinstance(error, DataError):
            log.error("%s: %s", instruction.kind, error)
        else:  # the text may name a patient's file
            log.exception("%s failed", instruction.kind)
        return Answer(error=_code(error))


def _code(error: Exception) -> SiteCode:
    codes: list[tuple[type[FedqanaError], SiteCode]] = [
        (BundleDamaged, "bundle-damaged"),
        (DataError, "data-unreadable"),
        (DeviceError, "device-error"),
        (ModelDoesNotFit, "device-error"),
        (StorageFull, "storage-full"),
        (StateDamaged, "state-damaged"),
        (StateInUse, "state-in-use"),
        (SiteRefused, "bad-instruction"),
        (SettingsError, "declined"),  # a policy that cannot be read allows nothing
    ]
    if isinstance(error, SiteRefused) and error.code in ("declined", "below-minimum"):
        return "declined" if error.code == "declined" else "below-minimum"
    return next((code for kind, code in codes if isinstance(error, kind)), "internal-error")


def handshake(
    instruction: Instruction, ask: HandshakeAsk, folder: SiteFolder, data: SiteData
) -> Answer:
    """Who this site is and which network it builds.

    Its training cases are those it was set up with and those it learned before the run.
    """
    if data.train.images.shape[1] != ask.config.input_size:
        return Answer(error="wrong-image-size")
    rounds = rounds_of(folder, ask.run)
    journal = CaseJournal(folder.state / "cases.journal", read_only=True)
    reply = HandshakeReply(
        protocol=PROTOCOL,
        site=data.name,
        classes=data.classes.codes,
        crop=data.crop.name,
        model_hash=model_hash(ask.config, len(ask.classes)),
        fedqana=__version__,
        n_train=len(data.train) + len(journal.facts(rounds.number(0))),
        n_validation=len(data.validation),
        n_test=len(data.test),
    )
    # A coordinator of another protocol must be able to read which one this is.
    unknown = set() if ask.protocol == PROTOCOL else {"crop"}
    return Answer(reply.model_dump_json(exclude=unknown))


def train_if_allowed(
    instruction: Instruction, ask: TrainAsk, folder: SiteFolder, data: SiteData
) -> Answer:
    """Train where the site's policy allows it now, with no more epochs than it allows."""
    policy = read_policy(folder.path).training
    with allowed_training(folder.path, policy):
        fewer = ask.model_copy(update={"epochs": policy.epochs(ask.epochs)})
        return train(instruction, fewer, folder, data)


def train(instruction: Instruction, ask: TrainAsk, folder: SiteFolder, data: SiteData) -> Answer:
    """Train the global weights on the site's cases and those learned up to the last round."""
    cases = training_cases(ask, folder, data)
    if not len(cases):
        return Answer(error="no-cases")
    if ask.distillation > 0 and not instruction.teacher:
        return Answer(error="bad-instruction")
    if ask.class_prior and len(ask.class_prior) != len(ask.classes):
        return Answer(error="bad-instruction")
    result = train_as_asked(
        ask,
        instruction.arrays,
        cases,
        instruction.teacher,
        TrainingProgress(folder.path, ask).epoch,
    )
    reply = TrainReply(examples=result.examples, loss=result.loss, seconds=result.seconds)
    return Answer(reply.model_dump_json(), arrays=result.weights)


def balance(
    instruction: Instruction, ask: BalanceAsk, folder: SiteFolder, data: SiteData
) -> Answer:
    """How the global network answers the site's training cases, summed over each class.

    Classes with fewer cases than the policy reports of are left out.
    """
    started = time.perf_counter()
    policy = read_policy(folder.path)
    if why := objection_to_balancing(policy):
        raise SiteRefused("declined", why)
    net = network(ask.phase, ask.config, len(ask.classes))
    net.set_weights(instruction.arrays)
    cases = training_cases(ask, folder, data)
    answers = answers_by_class(net.logits(cases.images), cases.labels)
    told = answers.of_large_classes(policy.reporting.min_cases_per_class)
    reply = BalanceReply(
        counts=tuple(told.counts.tolist()),
        shares=tuple(map(tuple, told.shares.tolist())),
        seconds=time.perf_counter() - started,
    )
    return Answer(reply.model_dump_json())


def evaluate(
    instruction: Instruction, ask: EvaluateAsk, folder: SiteFolder, data: SiteData
) -> Answer:
    """Counts of the global head on the validation lesions; ranges on some training images."""
    started = time.perf_counter()
    net = network(ask.phase, ask.config, len(ask.classes))
    net.set_weights(instruction.arrays)
    cases = relabelled(data.validation, data.classes, ask.classes)
    counts = ScoreCounts.from_logits(net.logits(cases.images), cases.labels)
    ranges: tuple[float, ...] = ()
    images = np.zeros((0,), np.uint8)
    if ask.calibrate:
        chosen = np.random.default_rng(derive_seed(0, "calibration", data.name)).permutation(
            len(data.train)
        )[:CALIBRATION_IMAGES]
        images = data.train.images[np.sort(chosen)]
        observed = observe_ranges(fold(instruction.arrays, ask.config), ask.config, images)
        ranges = tuple(float(r) for r in observed)
    reply = EvaluateReply(
        counts=counts.to_json(),
        ranges=ranges,
        calibration_images=len(images),
        seconds=time.perf_counter() - started,
    )
    return Answer(reply.model_dump_json())
