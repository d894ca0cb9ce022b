"""The life of one hospital site with its Akida programs: install, learn, classify, go back."""

import re
from collections import Counter
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.akida_runtime import LearningProgram, Program, available_device
from common.data.cases import Cases
from common.errors import BundleDamaged, DataUnfit, SettingsError, SiteRefused, StateDamaged
from common.files import sha256_of
from common.neurons import Neurons, NeuronSet, to_set
from edge_client.acceptance import Hits, balanced_accuracy, loss_of_recall
from edge_client.case_journal import CaseJournal, LabelledCase
from edge_client.chip_head import ChipHead, in_order
from edge_client.decision import decided
from edge_client.exemplars import ExemplarStore
from edge_client.learning_parameters import LearningRule
from edge_client.site_calibration import SiteCalibration
from edge_client.versions import InstallReport, VersionFolder

DOES_NOT_FIT = "does not fit"
"""Begins the reason of a version that was kept out because it does not map onto the device."""

BELOW_MINIMUM = "below the minimum"
"""Begins the reason of a version that was kept out because it recognises too little."""


@dataclass(frozen=True)
class EdgeSettings:
    """How a site judges a new program.

    ``tolerance`` is how much worse, in balanced accuracy of the chip's head on the held-back
    cases, a new program may be than the one in service. It is kept out where it is worse than
    that and by more than ``evidence`` standard errors, so that few cases of rare classes do not
    decide by chance (1.645: 5 % of equally good programs, one-sided). ``minimum`` is the balanced
    accuracy below which it is kept out in any case, also without a case to judge it by; 0 for
    none. With ``all_symmetries`` answers are the mean over an image's eight symmetries; acceptance
    is judged by single views. ``device`` is the chip whose virtual twin the fit is reported for.
    ``rule`` is how its learning layer learns (docs/on-chip-learning.md); ``seed`` draws new
    neurons.
    """

    tolerance: float = 0.05
    evidence: float = 1.645
    minimum: float = 0.0
    all_symmetries: bool = False
    device: str = "AKD1000"
    rule: LearningRule = "prototypes"
    seed: int = 0


@dataclass
class Serving:
    """What is in service: version, program with global head, chip head, cases it learned."""

    version: str
    program: Program
    head: ChipHead
    learned: list[str]


class EdgeClient:
    """A site's program in service and everything it has learned, kept in one folder.

    For one process at a time. After a crash the same state comes back: the learned layer as
    last saved, then the journalled cases that it had not learned yet, in their order.

    Parameters
    ----------
    state_dir : Path
        Made where it does not exist.
    read_only : bool
        Look without changing anything. Otherwise what a crash left half-done is undone first.
        Either way hold the folder's lock (`edge_client.state_lock`) where other processes may be.
    held_back : container of str
        Lesions that nothing may be learned from, whatever the journal says.
    """

    def __init__(
        self,
        state_dir: Path,
        settings: EdgeSettings | None = None,
        *,
        read_only: bool = False,
        held_back: Container[str] = (),
    ) -> None:
        self._settings = settings or EdgeSettings()
        self._versions = VersionFolder(state_dir)
        if not read_only:
            self._versions.clean()
        self.journal = CaseJournal(state_dir / "cases.journal", read_only=read_only)
        self._held_back = held_back
        self._serving: Serving | None = None

    def install(
        self,
        program: Program,
        version: str,
        round_number: int,
        classes: tuple[str, ...],
        store: ExemplarStore,
        validation: Cases,
        counts: Mapping[str, int] | None = None,
        *,
        made_of: str = "",
    ) -> InstallReport:
        """Relearn store and journal on ``program`` and switch over to it unless it is worse.

        A pure function of its arguments and of the version before: repeated after a crash,
        also with cases of this round in the journal, it gives the same result and starts
        the round's learning anew.

        Parameters
        ----------
        version : str
            Letters, digits, ``.``, ``_`` and ``-``.
        round_number : int
            Cases with this round (or later) are learned on top of this version.
        classes : tuple of str
            The class map; ``validation.labels`` are indices into it.
        store : ExemplarStore
            Of the site's own training cases; the journal's of earlier rounds are offered to it.
            At least one case in all.
        counts : mapping of str to int, optional
            The site's training cases of each class code: how frequent classes are there, which
            probabilities are calibrated to together with the journal's cases. Without them the
            scores' own temperature is fitted only.
        made_of : str
            SHA-256 of the coordinator's program, where ``program`` is the site's own, fine-tuned
            from it; empty where it is that itself.

        Raises
        ------
        SiteRefused
            "below-minimum", where the program does not reach the settings' minimum and there is
            none in service that could be kept: then none is.
        """
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", version):
            raise SettingsError(f"{version!r} is no version name; use letters, digits, . _ -")
        if len(validation) and validation.images.shape[1:] != program.input_shape:
            raise _wrong_shape(validation.images.shape[1:], program)
        seed, rule = self._settings.seed, self._settings.rule
        known = store.with_cases(self._cases(round_number - 1))
        head, parameters = ChipHead.relearned(program, classes, known, seed, rule)
        complete = head.learner.complete()
        device = available_device()
        fit = complete.fit_report(self._settings.device)
        codes = [classes[label] for label in validation.labels]
        hits = head.hits(validation.images, codes)

        previous = self._version_before(version, round_number)
        before = None if previous is None else self._restored(previous, before=round_number)
        hits_before = None if before is None else before.head.hits(validation.images, codes)
        reason = self._objection(hits, hits_before, codes)
        if before is None and reason.startswith(BELOW_MINIMUM):
            raise SiteRefused("below-minimum", f"version {version} is not installed: {reason}")
        if device.real and not fit.fits:
            if before is None:
                complete.require_fit(self._settings.device)
            reason = f"{DOES_NOT_FIT} {self._settings.device}: {fit.reason}"
        serving, registry = Serving(version, program, head, []), classes
        if reason and before is not None and previous is not None:
            serving = Serving(version, before.program, before.head, [])
            registry = self._versions.report(previous).registry
            store = self._first_store(previous)
            made_of = self._versions.report(previous).made_of
        report = InstallReport(
            version=version,
            round=round_number,
            switched=not reason,
            reason=reason,
            serving=version if previous is None or not reason else self._served_by(previous),
            previous=previous,
            backend=device.name,
            fit=fit.to_json(),
            parameters=parameters.to_json(),
            classes=serving.head.classes,
            exemplars=len(serving.head.store),
            validation_cases=len(validation),
            candidate_accuracy=balanced_accuracy(hits, codes),
            previous_accuracy=(
                None if hits_before is None else balanced_accuracy(hits_before, codes)
            ),
            seed=seed,
            rule=rule,
            registry=registry,
            all_symmetries=self._settings.all_symmetries,
            made_of=made_of,
        )
        frequent = Counter(counts or {})
        if counts:
            frequent.update(case.code for case in self._cases(round_number - 1))
        scores, answers = decided(
            serving.program, serving.head, registry, validation.images, report.all_symmetries
        )
        calibration = SiteCalibration.fitted(
            scores, codes, validation.lesion_ids, answers, frequent
        )
        self._versions.add(
            report,
            serving.program.to_bytes(),
            serving.head.learner.to_bytes(),
            store.to_bytes(),
            serving.head.foreign,
            self.journal.corrections,
            calibration,
        )
        self._serving = serving
        return report

    def learn(self, case: LabelledCase) -> None:
        """Write the case to the journal, then learn it; when this returns it is durable.

        A case that was learned already is left alone, whatever its label is now. A class code
        unknown until now becomes a class of the chip's head. Raises DataUnfit for an image of
        another size, StorageFull with nothing learned.
        """
        serving = self.in_service()
        if case.image.shape != serving.program.input_shape:
            raise _wrong_shape(case.image.shape, serving.program)
        if not self.journal.append(case):
            known = self.journal.case(case.case_id)  # its first label is the one that is kept
            if known is None or known.round < self._versions.report(serving.version).round:
                return  # forgotten, or learned before this version, which relearned the exemplars
            case = known
        _learn(serving, [case])

    def correct(self, case_id: str, code: str | None) -> bool:
        """Unlearn a case's label and learn the right one; with None, forget the case.

        Durable when it returns. Everything is then as if the case had come with that label, or
        never: the head is relearned from store and journal. False where nothing changes; raises
        DataUnfit where no such case was learned here.
        """
        serving = self.in_service()
        try:
            changed = self.journal.correct(case_id, code)
        except KeyError as error:
            raise DataUnfit(
                f"no case {case_id!r} was learned at this site; see the case ids in its records"
            ) from error
        if changed:
            self._serving = self._relearned(serving.version, serving.program)
            self.save()
        return changed

    def neurons(self, known: Collection[str], program: str) -> NeuronSet | None:
        """What this site's exemplars taught the learning layer, classes of ``known`` left out.

        None where there is nothing, where another program is in service than the one of which
        ``program`` is the SHA-256, and with Akida's own rule, whose neurons mean something only
        beside each other.
        """
        head = self.in_service().head
        if head.rule != "prototypes" or not self.serves(program):
            return None
        own = {code: part for code, part in head.own_neurons().items() if code not in known}
        return to_set(own, Counter(head.store.codes), program, head.learner.num_weights)

    def serves(self, program: str) -> bool:
        """Whether the program in service is the one of which ``program`` is the SHA-256."""
        if self._versions.current() is None:
            return False
        file = self._versions.read(self.in_service().version, "program.fbz")
        return sha256_of(file) == program

    def adopt(self, foreign: Mapping[str, Neurons]) -> int:
        """Take over other sites' neurons for this program, in place of earlier ones; durable.

        Returns how many: the site's own neuron that comes back is not one of another site. None
        with Akida's own rule.
        """
        head = self.in_service().head
        if head.rule != "prototypes":
            return 0
        own = head.own_neurons()
        others = {
            code: _without(own[code], found) if code in own else found
            for code, found in foreign.items()
        }
        head.adopt({code: found for code, found in others.items() if len(found)})
        self.save()
        return sum(len(found) for found in head.foreign.values())

    def save(self) -> None:
        """Write the learned layer down, so that a restart need not learn its cases again."""
        serving = self.in_service()
        self._versions.save_learned(
            serving.version,
            serving.head.learner.to_bytes(),
            serving.head.classes,
            tuple(serving.learned),
            serving.head.foreign,
            self.journal.corrections,
        )

    def classify(self, images: NDArray[np.uint8], classes: Sequence[str]) -> NDArray[np.float32]:
        """Potentials of the chip's head, see `ChipHead.potentials_for`."""
        return self.in_service().head.potentials_for(images, classes)

    def decide(
        self,
        images: NDArray[np.uint8],
        classes: Sequence[str],
        all_symmetries: bool | None = None,
    ) -> NDArray[np.float32]:
        """What the site answers: scores of both heads together, columns as ``classes``.

        By the mean over all symmetries or not as the version in service was installed for, unless
        said otherwise. See `edge_client.decision`. Raises UnknownLabel where a head has a class
        that is not in ``classes``.
        """
        serving = self.in_service()
        report = self._versions.report(serving.version)
        if all_symmetries is None:
            all_symmetries = report.all_symmetries
        scores, codes = decided(
            serving.program, serving.head, report.registry, images, all_symmetries
        )
        return in_order(scores, codes, classes)

    def classify_global(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits of the serving program's own head, (n, its classes)."""
        return self.in_service().program.predict_potentials(images)

    def calibration(self) -> SiteCalibration:
        """What makes scores probabilities, as fitted when the version in service was installed."""
        return self._versions.calibration(self.in_service().version)

    def exemplars(self) -> ExemplarStore:
        """The exemplars that the chip's head learned from."""
        return self.in_service().head.store

    def round_of(self, version: str) -> int:
        """The site's round in which a version was installed."""
        return self._versions.report(version).round

    @property
    def classes(self) -> tuple[str, ...]:
        """Codes the chip's head knows."""
        return self.in_service().head.classes

    @property
    def num_weights(self) -> int:
        """Connections of each neuron of the chip's head: the highest potential there is."""
        return self.in_service().head.learner.num_weights

    def rollback(self) -> str:
        """Return to the last version with another program; returns its name.

        Cases journalled since then are learned on top of it, so none is lost.
        """
        target = self._versions.last_other_program()
        serving = self._restored(target)
        self._versions.set_current(target)
        self._serving = serving
        self.save()
        return target

    def status(self) -> dict[str, Any]:
        """What is in service and how much it has learned, as plain JSON values."""
        serving = self.in_service()
        report = self._versions.report(serving.version)
        return {
            "version": serving.version,
            "serving": report.serving,
            "classes": list(serving.head.classes),
            "neurons": serving.head.learner.neurons,
            "cases_learned": len(serving.learned),
            "cases_journalled": len(self.journal),
            "backend": available_device().name,
            "all_symmetries": report.all_symmetries,
            "fine_tuned": bool(report.made_of),
        }

    def in_service(self) -> Serving:
        """What answers now: version, program, chip head; ModelNotFound before the first one."""
        if self._serving is None:
            self._serving = self._restored(self._versions.require_current())
        return self._serving

    def _served_by(self, version: str) -> str:
        return self._versions.report(version).serving

    def _version_before(self, version: str, round_number: int) -> str | None:
        """What was in service before this round, also when the round is repeated."""
        current = self._versions.current()
        if current is None or self._versions.report(current).round < round_number:
            return current
        names = self._versions.names()
        if version in names:
            return self._versions.report(version).previous
        older = [name for name in names if self._versions.report(name).round < round_number]
        return older[-1] if older else None

    def _restored(self, version: str, before: int | None = None) -> Serving:
        """A version as it was last saved, with the journalled cases it had not learned yet.

        Cases of round ``before`` and later are left out.
        """
        report, state = self._versions.report(version), self._versions.learned(version)
        try:
            program = Program.from_bytes(self._versions.read(version, "program.fbz"))
            learned = self._versions.read(version, state.file)
            learner = LearningProgram.from_bytes(learned, report.seed)
        except BundleDamaged as error:
            raise StateDamaged(
                f"version {version} of this site is damaged; restore it from a backup or go back "
                f"with `fedqana client rollback` ({error})"
            ) from error
        if state.corrections != self.journal.corrections:  # a crash came between the two
            return self._relearned(version, program, before)
        in_head = set(state.cases)
        known = (c for c in self._cases() if c.round < report.round or c.case_id in in_head)
        store = self._first_store(version).with_cases(known)
        head = ChipHead(
            learner,
            state.classes,
            program.output_shape[-1],
            store,
            report.rule,
            self._versions.foreign(version),
        )
        serving = Serving(version, program, head, list(state.cases))
        _learn(serving, self._later_cases(report.round, before))
        return serving

    def _relearned(self, version: str, program: Program, before: int | None = None) -> Serving:
        """A version as the journal of now would have made it, from its installation on.

        Cases of round ``before`` and later are left out.
        """
        report, foreign = self._versions.report(version), self._versions.foreign(version)
        store = self._first_store(version).with_cases(self._cases(report.round - 1))
        head, _ = ChipHead.relearned(program, report.registry, store, report.seed, report.rule)
        serving = Serving(version, program, head, [])
        _learn(serving, self._later_cases(report.round, before))
        if foreign:
            head.adopt(foreign)
        return serving

    def _cases(self, up_to_round: int | None = None) -> Iterator[LabelledCase]:
        """The journal's cases, those of held-back lesions left out."""
        cases = self.journal.cases(up_to_round)
        return (case for case in cases if case.lesion_id not in self._held_back)

    def _later_cases(self, first: int, before: int | None) -> list[LabelledCase]:
        """Cases of the rounds from ``first`` on, up to but not including ``before``."""
        up_to = None if before is None else before - 1
        return [case for case in self._cases(up_to) if case.round >= first]

    def _first_store(self, version: str) -> ExemplarStore:
        """The exemplars of the site's own data with which a version was installed."""
        return ExemplarStore.load(self._versions.file(version, "exemplars.bin"))

    def _objection(self, new: Hits, before: Hits | None, codes: list[str]) -> str:
        """Why the program in service should be kept, or an empty text."""
        minimum, reached = self._settings.minimum, balanced_accuracy(new, codes)
        if minimum and (reached is None or reached < minimum):
            found = "not known without held-back cases" if reached is None else f"{reached:.3f}"
            return f"{BELOW_MINIMUM} of {minimum:g}: the chip head's balanced accuracy is {found}"
        if before is None or not codes:
            return ""
        loss, standard_error = loss_of_recall(new, before, codes)
        tolerance, evidence = self._settings.tolerance, self._settings.evidence
        if loss <= tolerance or loss < evidence * standard_error:
            return ""
        return (
            f"balanced accuracy of the chip's head is {loss:.3f} lower than that of the version in "
            f"service on {len(codes)} held-back cases (tolerance {tolerance}, standard error "
            f"{standard_error:.3f})"
        )


def _learn(serving: Serving, cases: Sequence[LabelledCase]) -> None:
    new = [case for case in cases if case.case_id not in serving.learned]
    serving.head.learn(new)
    serving.learned += [case.case_id for case in new]


def _without(own: Neurons, found: Neurons) -> Neurons:
    """The neurons of ``found`` with other connections than the one of ``own``."""
    same = (found.weights == own.weights[:, :1]).all(axis=0)
    return found.chosen([int(index) for index in np.flatnonzero(~same)])


def _wrong_shape(shape: tuple[int, ...], program: Program) -> DataUnfit:
    return DataUnfit(
        f"an image is {shape} where the program wants {program.input_shape}; "
        "prepare the image at the program's size"
    )
