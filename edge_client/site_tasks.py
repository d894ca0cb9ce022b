"""What a site does when the coordinator asks, free of any engine.

Each task is a function of the site's data, its journal up to the round before, and the
instruction: asked again after a crash, it gives the same answer.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from common import __version__
from common.akida_runtime import Program
from common.akida_runtime.spike_head import spikes_and_potentials
from common.answers_by_class import answers_by_class
from common.bundle import CARD, FLOAT, PROGRAM, QUANTIZED, SIGNATURE, Bundle, parse_card
from common.data.cases import Cases
from common.errors import (
    BundleDamaged,
    DataError,
    DeviceError,
    FedqanaError,
    ModelDoesNotFit,
    ModelNotFound,
    SettingsError,
    SiteRefused,
    StateDamaged,
    StateInUse,
    StorageFull,
)
from common.keys import is_sealed
from common.messages import (
    PROTOCOL,
    Answer,
    BalanceAsk,
    BalanceReply,
    DeployAsk,
    DeployReply,
    EvaluateAsk,
    EvaluateReply,
    FinalAsk,
    FinalReply,
    HandshakeAsk,
    HandshakeReply,
    Instruction,
    KeptCode,
    ShareAsk,
    ShareReply,
    SiteCode,
    TrainAsk,
    TrainReply,
)
from common.metrics import ScoreCounts
from common.neurons import from_set
from common.qana.convert import agreement, keras_spikes_and_logits
from common.qana.fold import fold
from common.qana.networks import model_hash, network
from common.qana.quantize import CALIBRATION_IMAGES, observe_ranges
from common.seeds import derive_seed
from common.test_time_views import over_symmetries
from edge_client.case_journal import CaseJournal, LabelledCase
from edge_client.client_folder import pinned_seal
from edge_client.exemplars import ExemplarStore
from edge_client.oversampling import oversampled
from edge_client.policy import read_policy
from edge_client.reporting import judged_on, objection_to_balancing, reported
from edge_client.run_rounds import SiteRounds
from edge_client.service import BELOW_MINIMUM, DOES_NOT_FIT, EdgeClient, EdgeSettings
from edge_client.site import SiteData, SiteFolder, relabelled
from edge_client.site_cache import SiteCache
from edge_client.state_lock import state_in_use
from edge_client.training import TrainSettings, train_locally
from edge_client.training_progress import TrainingProgress
from edge_client.training_time import allowed_training

log = logging.getLogger("fedqana.site")

_SITES = SiteCache()
_SPIKE_SAMPLE = 8
_POTENTIAL_SPAN = 16.0
"""Chip potentials are brought to at most this: their histogram is then as fine as the logits'."""


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
    rounds = _rounds(folder, ask.run)
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
    result = train_locally(
        instruction.arrays,
        cases,
        ask.config,
        len(ask.classes),
        TrainSettings(
            phase=ask.phase,
            epochs=ask.epochs,
            batch=ask.batch,
            learning_rate=ask.learning_rate,
            prior_strength=ask.prior_strength,
            proximal=ask.proximal,
            seed=ask.seed,
            class_prior=ask.class_prior,
            fixed_batch_norm=ask.fixed_batch_norm,
            event_penalty=ask.event_penalty,
            distillation=ask.distillation,
        ),
        instruction.teacher,
        TrainingProgress(folder.path, ask).epoch,
    )
    reply = TrainReply(examples=result.examples, loss=result.loss, seconds=result.seconds)
    return Answer(reply.model_dump_json(), arrays=result.weights)


def training_cases(ask: TrainAsk | BalanceAsk, folder: SiteFolder, data: SiteData) -> Cases:
    """The site's training cases, with SMOTE's if asked, and the journal's up to the round before.

    Of the journal's nothing is made: they are others in every round, and making takes minutes.
    """
    rounds = _rounds(folder, ask.run)
    journal = CaseJournal(folder.state / "cases.journal", read_only=True)
    held_back = data.held_back
    learned = [
        case
        for case in journal.cases(rounds.number(ask.round) - 1)
        if case.code in ask.classes and case.lesion_id not in held_back
    ]
    cases = relabelled(data.train, data.classes, ask.classes)
    if isinstance(ask, TrainAsk) and ask.balance == "smote":
        cases = oversampled(cases, ask.classes, data.name, ask.smote_share, folder.path)
    parts = [cases]
    if learned:
        parts.append(_as_cases(learned, ask.classes))
    return Cases.concatenate(parts)


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


def deploy(instruction: Instruction, ask: DeployAsk, folder: SiteFolder, data: SiteData) -> Answer:
    """Install the new version on the chip, then learn the cases that arrived, one at a time."""
    with state_in_use(folder.state):
        return _deploy(instruction, ask, folder, data)


def _deploy(instruction: Instruction, ask: DeployAsk, folder: SiteFolder, data: SiteData) -> Answer:
    started = time.perf_counter()
    bundle = _verified(instruction.files, folder)
    card = bundle.card
    if card.crop and card.crop != data.crop.name:
        log.error(
            "deploy: version %d was trained on images with the crop %r, this site's have %r; join "
            "from a new folder with --crop %s to use it",
            *(card.version, card.crop, data.crop.name, card.crop),
        )
        return Answer(error="wrong-crop")
    program = Program.from_bytes(bundle.files[PROGRAM])
    client = _client(ask, folder, data)
    rounds = _rounds(folder, ask.run)
    number = rounds.number(ask.round)
    earlier = client.journal.facts(number - 1)
    store = ExemplarStore.initial(data.train, data.classes.codes, seed=ask.seed)
    known = relabelled(data.validation, data.classes, card.classes)
    judged = relabelled(judged_on(data), data.classes, card.classes)
    counts = Counter(data.classes.codes[label] for label in data.train.labels)
    report = client.install(
        program, rounds.version(ask.version), number, card.classes, store, judged, counts
    )

    arrived = data.arriving(ask.round, {case.case_id for case in earlier}, number)
    unknown = ({case.code for case in arrived} | set(client.classes)) - set(card.classes)
    codes = (*card.classes, *sorted(unknown))
    cases = relabelled(data.validation, data.classes, codes)
    before = _chip_scores(client, cases.images, codes)
    for case in arrived:
        client.learn(case)
    after = before
    if arrived:
        client.save()
        after = _chip_scores(client, cases.images, codes)

    keras_spikes, keras_logits = keras_spikes_and_logits(
        bundle.weights(QUANTIZED), card.config, len(card.classes), known.images
    )
    program_spikes, program_logits = spikes_and_potentials(program, known.images)
    equal = agreement(keras_spikes, keras_logits, program_spikes, program_logits)
    original = card.classes[: ask.original_classes]
    taught = (
        client.neurons(original, card.sha256[PROGRAM])
        if report.switched and data.shares_neurons
        else None
    )
    measured = program.measure(known.images[:_SPIKE_SAMPLE])
    sample = known.images[:_SPIKE_SAMPLE]
    new = cases.labels >= ask.original_classes
    reply = DeployReply(
        switched=report.switched,
        reason=_kept_because(report.reason),
        in_service=rounds.run_version(report.serving),
        cases_learned=len(arrived) + _taught_since(client, report.previous, data, number),
        new_classes=codes[len(card.classes) :],
        backend=report.backend,
        heads={
            "akida": ScoreCounts.from_logits(program_logits, known.labels).to_json(),
            "quantized": ScoreCounts.from_logits(keras_logits, known.labels).to_json(),
            "chip_before": ScoreCounts.from_logits(before, cases.labels).to_json(),
            "chip_after": ScoreCounts.from_logits(after, cases.labels).to_json(),
        },
        old_before=_hits(before, cases.labels, ~new),
        old_after=_hits(after, cases.labels, ~new),
        new_before=_hits(before, cases.labels, new),
        new_after=_hits(after, cases.labels, new),
        agreement=equal.to_json(),
        mean_spikes=program.mean_spikes(sample) if len(sample) else {},
        latency_ms=measured.latency_ms,
        power_mw=measured.power_mw,
        neurons=taught,
        seconds=time.perf_counter() - started,
    )
    return Answer(reply.model_dump_json())


def share(instruction: Instruction, ask: ShareAsk, folder: SiteFolder, data: SiteData) -> Answer:
    """Take over the neurons that other sites taught to new classes on this version's spikes."""
    started = time.perf_counter()
    with state_in_use(folder.state):
        client = _client(ask, folder, data)
        if not client.serves(ask.neurons.program):  # it kept an older version
            reply = ShareReply(adopted=0, seconds=time.perf_counter() - started)
            return Answer(reply.model_dump_json())
        try:
            foreign = from_set(ask.neurons)
        except ValueError as error:
            raise SiteRefused("bad-instruction", f"neurons that are none: {error}") from error
        codes = (*ask.classes, *(c for c in client.classes if c not in ask.classes))
        cases = relabelled(data.validation, data.classes, codes)
        new = cases.labels >= ask.original_classes
        client.adopt({})  # asked again after a crash, "before" is the same
        before = _chip_scores(client, cases.images, codes)
        adopted = client.adopt(foreign)
        after = _chip_scores(client, cases.images, codes)
        reply = ShareReply(
            adopted=adopted,
            old_before=_hits(before, cases.labels, ~new),
            old_after=_hits(after, cases.labels, ~new),
            new_before=_hits(before, cases.labels, new),
            new_after=_hits(after, cases.labels, new),
            seconds=time.perf_counter() - started,
        )
    return Answer(reply.model_dump_json())


def final(instruction: Instruction, ask: FinalAsk, folder: SiteFolder, data: SiteData) -> Answer:
    """All heads on the test lesions, which nothing was chosen by."""
    started = time.perf_counter()
    bundle = _verified(instruction.files, folder)
    card = bundle.card
    program = Program.from_bytes(bundle.files[PROGRAM])
    cases = relabelled(data.test, data.classes, ask.classes)
    floating = network("float", card.config, len(card.classes))
    floating.set_weights(bundle.weights(FLOAT))
    keras_spikes, keras_logits = keras_spikes_and_logits(
        bundle.weights(QUANTIZED), card.config, len(card.classes), cases.images
    )
    program_spikes, program_logits = spikes_and_potentials(program, cases.images)
    equal = agreement(keras_spikes, keras_logits, program_spikes, program_logits)
    scores = {
        "float": floating.logits(cases.images),
        "quantized": keras_logits,
        "akida": program_logits,
    }
    if ask.all_symmetries:
        of_views = over_symmetries(program.predict_potentials)
        scores["akida_symmetries"] = of_views(cases.images)
    n_classes = len(ask.classes)
    try:
        with state_in_use(folder.state):
            client = _client(ask, folder, data)
            # A class that the run did not come to know is no answer to any of its cases.
            codes = (*ask.classes, *(code for code in client.classes if code not in ask.classes))
            scores["chip"] = _chip_scores(client, cases.images, codes)[:, :n_classes]
            scores["combined"] = client.decide(cases.images, codes, False)[:, :n_classes]
            if ask.all_symmetries:
                scores["symmetries"] = client.decide(cases.images, codes, True)[:, :n_classes]
    except (ModelNotFound, StateDamaged) as error:
        log.warning("no program serves at %s: %s", data.name, error)
    reply = FinalReply(
        heads={
            head: ScoreCounts.from_logits(_widened(s, n_classes), cases.labels).to_json()
            for head, s in scores.items()
        },
        agreement=equal.to_json(),
        seconds=time.perf_counter() - started,
    )
    return Answer(reply.model_dump_json())


def _client(ask: DeployAsk | ShareAsk | FinalAsk, folder: SiteFolder, data: SiteData) -> EdgeClient:
    """The site's edge client for a run; its folder's lock is held."""
    policy = read_policy(folder.path)
    asked = isinstance(ask, DeployAsk) and ask.all_symmetries  # others install nothing
    settings = EdgeSettings(
        tolerance=policy.acceptance.tolerance,
        evidence=policy.acceptance.evidence,
        minimum=policy.acceptance.min_balanced_accuracy,
        all_symmetries=policy.answers.by_symmetries(asked),
        seed=ask.seed,
    )
    return EdgeClient(folder.state, settings, held_back=data.held_back)


def _rounds(folder: SiteFolder, run: str) -> SiteRounds:
    """Where a run's rounds lie among the site's own."""
    return SiteRounds(folder.state, run, (pinned_seal(folder.path) or "")[:8])


def _taught_since(client: EdgeClient, previous: str | None, data: SiteData, number: int) -> int:
    """Cases that the hospital taught its chip since the version before, beside simulated ones."""
    first = 0 if previous is None else client.round_of(previous)
    arrivals = set(data.arrivals.case_ids)
    taught = client.journal.facts(number)
    return sum(case.round >= first and case.case_id not in arrivals for case in taught)


def _kept_because(reason: str) -> KeptCode:
    """The code for the edge client's reason to keep its version; its text stays at the site."""
    if not reason:
        return ""
    if reason.startswith(BELOW_MINIMUM):
        return "below-minimum"
    return "does-not-fit" if reason.startswith(DOES_NOT_FIT) else "worse-than-current"


def _verified(files: dict[str, bytes], folder: SiteFolder) -> Bundle:
    """The bundle that came with an instruction, every file checked against the card.

    At a site that joined a coordinator the card must bear that coordinator's signature.
    """
    contents = dict(files)
    signature = contents.pop(SIGNATURE, b"")
    content = contents.pop(CARD, b"")
    seal = pinned_seal(folder.path)
    if seal is not None and not is_sealed(seal, content, signature):
        raise BundleDamaged("the bundle is not signed by this site's coordinator; not installed")
    card = parse_card(content)
    if PROGRAM not in contents or QUANTIZED not in contents:
        raise BundleDamaged("the bundle came without its program or its weights; send it again")
    return Bundle(card, contents)


def _as_cases(learned: list[LabelledCase], classes: tuple[str, ...]) -> Cases:
    return Cases(
        np.stack([c.image for c in learned]),
        np.array([classes.index(c.code) for c in learned], np.int64),
        tuple(c.case_id for c in learned),
        tuple(c.lesion_id for c in learned),
    )


def _chip_scores(
    client: EdgeClient, images: NDArray[np.uint8], codes: tuple[str, ...]
) -> NDArray[np.float32]:
    """Potentials of the chip's head in the order of ``codes``, scaled to the span."""
    if not len(images):
        return np.zeros((0, len(codes)), np.float32)
    scale = _POTENTIAL_SPAN / client.num_weights
    return np.asarray(client.classify(images, codes) * scale, np.float32)


def _widened(scores: NDArray[np.float32], n_classes: int) -> NDArray[np.float32]:
    """Scores with -inf columns for classes that a head does not have."""
    missing = n_classes - scores.shape[1]
    return np.pad(scores, ((0, 0), (0, missing)), constant_values=-np.inf)


def _hits(
    scores: NDArray[np.float32], labels: NDArray[np.int64], chosen: NDArray[np.bool_]
) -> tuple[int, int]:
    """Correct cases and all cases among ``chosen``."""
    hits = scores.argmax(axis=1) == labels if len(labels) else np.zeros(0, bool)
    return int(hits[chosen].sum()), int(chosen.sum())
