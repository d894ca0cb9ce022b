"""What a site does with a program: install it, learn on it, share what it learned, test it.

Asked again after a crash, each gives the same answer, as the tasks of `edge_client.site_tasks` do.
"""

import logging
import time
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from common.akida_runtime import Program
from common.akida_runtime.spike_head import spikes_and_potentials
from common.bundle import CARD, FLOAT, PROGRAM, QUANTIZED, SIGNATURE, Bundle, parse_card
from common.errors import BundleDamaged, ModelNotFound, SiteRefused, StateDamaged
from common.keys import is_sealed
from common.messages import (
    Answer,
    DeployAsk,
    DeployReply,
    FinalAsk,
    FinalReply,
    Instruction,
    KeptCode,
    ShareAsk,
    ShareReply,
)
from common.metrics import ScoreCounts
from common.neurons import from_set
from common.qana.convert import agreement, keras_spikes_and_logits
from common.qana.networks import network
from common.score_counts import widened
from common.test_time_views import over_symmetries
from edge_client.client_folder import pinned_seal
from edge_client.exemplars import ExemplarStore
from edge_client.own_program import LACKS_CLASSES, lacks_classes, own_program
from edge_client.policy import read_policy
from edge_client.reporting import judged_on
from edge_client.run_rounds import rounds_of
from edge_client.service import BELOW_MINIMUM, DOES_NOT_FIT, EdgeClient, EdgeSettings
from edge_client.site import SiteData, SiteFolder, relabelled
from edge_client.state_lock import state_in_use
from edge_client.versions import InstallReport

log = logging.getLogger("fedqana.site")

_SPIKE_SAMPLE = 8
_POTENTIAL_SPAN = 16.0
"""Chip potentials are brought to at most this: their histogram is then as fine as the logits'."""


def deploy(instruction: Instruction, ask: DeployAsk, folder: SiteFolder, data: SiteData) -> Answer:
    """Install the new version on the chip, then learn the cases that arrived, one at a time.

    Where the run asks for it and the policy allows it, the version is trained on for the site
    first, and what came of that is installed if it is better.
    """
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
    own = own_program(ask, bundle, folder, data)  # unlocked: the site's service goes on meanwhile
    with state_in_use(folder.state):
        return _deploy(ask, bundle, own, folder, data, started)


def _deploy(
    ask: DeployAsk,
    bundle: Bundle,
    own: Program | None,
    folder: SiteFolder,
    data: SiteData,
    started: float,
) -> Answer:
    card = bundle.card
    program = Program.from_bytes(bundle.files[PROGRAM])
    client = _client(ask, folder, data)
    rounds = rounds_of(folder, ask.run)
    number = rounds.number(ask.round)
    earlier = client.journal.facts(number - 1)
    store = ExemplarStore.initial(data.train, data.classes.codes, seed=ask.seed)
    known = relabelled(data.validation, data.classes, card.classes)
    judged = relabelled(judged_on(data), data.classes, card.classes)
    counts = Counter(data.classes.codes[label] for label in data.train.labels)
    arrived = data.arriving(ask.round, {case.case_id for case in earlier}, number)

    def install(chosen: Program, made_of: str) -> InstallReport:
        name = rounds.version(ask.version)
        facts = (name, number, card.classes, store, judged, counts)
        return client.install(chosen, *facts, made_of=made_of)

    if own is not None and lacks_classes(card.classes, client.journal, number, arrived, data):
        log.info("the site's own program is not served: %s", LACKS_CLASSES)
        own = None  # taught while the site trained
    report = None
    if own is not None:
        try:
            report = install(own, card.sha256[PROGRAM])
            refused = report.reason
        except SiteRefused as error:  # below the minimum, and nothing in service
            refused = str(error)
        if refused:  # the program that came may be better than both
            log.info("the site's own program is not served: %s", refused)
            report = None
    report = report or install(program, "")

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
        fine_tuned=bool(report.made_of),
        seconds=time.perf_counter() - started,
    )
    return Answer(reply.model_dump_json())


def share(instruction: Instruction, ask: ShareAsk, folder: SiteFolder, data: SiteData) -> Answer:
    """Take over the neurons that other sites taught to new classes on this version's spikes."""
    started = time.perf_counter()
    with state_in_use(folder.state):
        client = _client(ask, folder, data)
        if not client.serves(ask.neurons.program):  # but an older version, or one of its own
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
            head: ScoreCounts.from_logits(widened(s, n_classes), cases.labels).to_json()
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


def _chip_scores(
    client: EdgeClient, images: NDArray[np.uint8], codes: tuple[str, ...]
) -> NDArray[np.float32]:
    """Potentials of the chip's head in the order of ``codes``, scaled to the span."""
    if not len(images):
        return np.zeros((0, len(codes)), np.float32)
    scale = _POTENTIAL_SPAN / client.num_weights
    return np.asarray(client.classify(images, codes) * scale, np.float32)


def _hits(
    scores: NDArray[np.float32], labels: NDArray[np.int64], chosen: NDArray[np.bool_]
) -> tuple[int, int]:
    """Correct cases and all cases among ``chosen``."""
    hits = scores.argmax(axis=1) == labels if len(labels) else np.zeros(0, bool)
    return int(hits[chosen].sum()), int(chosen.sum())
