"""The folder in which an edge client keeps the programs it served, readable without Akida.

``versions/VERSION/`` holds what the site served from the arrival of VERSION on: ``program.fbz``
(the program with its global head), ``learned-HASH.fbz`` (with the learning layer),
``foreign-HASH.npz`` (other sites' neurons in it, where it has any),
``exemplars.bin``, ``meta.json`` (facts of the installation, never changed),
``calibration.json`` (what makes scores probabilities; older versions lack it) and ``state.json``
(which learned file counts, what it has learned since). ``current`` names the version.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from common.arrays import from_npz, to_npz
from common.errors import ModelNotFound, StateDamaged
from common.files import replace_folder, sha256_of, write_atomically, writing_to
from common.neurons import Neurons
from edge_client.learning_parameters import LearningRule
from edge_client.site_calibration import SiteCalibration

_CALIBRATION = "calibration.json"
_KEPT_PROGRAMS = 3
_LATER = frozenset({"all_symmetries", "made_of"})
"""Of meta.json, what versions that were installed by an older FedQANA lack."""
_WEIGHTS, _THRESHOLDS = "/weights", "/thresholds"


@dataclass(frozen=True)
class InstallReport:
    """What became of one version on arrival.

    Parameters
    ----------
    version, round : str, int
    switched : bool
        False where the program in service before was kept; ``reason`` says why.
    serving : str
        Version whose program serves now.
    previous : str or None
        Version that was current before.
    backend : str
        Where the program runs.
    fit : dict
        `FitReport` of the program with its learning layer, as JSON.
    parameters : dict
        `LearningParameters` of the new program, as JSON.
    classes : tuple of str
        Codes of the chip head's outputs, in order, at installation.
    exemplars, validation_cases : int
    candidate_accuracy, previous_accuracy : float or None
        Balanced accuracy of the new chip head and of the one in service before on the site's
        held-back cases; None where there was none, or no case.
    seed : int
    rule : str
        How the learning layer learns.
    registry : tuple of str
        Codes of the program's own classes.
    all_symmetries : bool
        Whether answers are the mean over an image's eight symmetries, as the calibration is.
    made_of : str
        SHA-256 of the coordinator's program, where the one that serves is the site's own,
        fine-tuned from it; empty where it is that itself.
    """

    version: str
    round: int
    switched: bool
    reason: str
    serving: str
    previous: str | None
    backend: str
    fit: dict[str, Any]
    parameters: dict[str, Any]
    classes: tuple[str, ...]
    exemplars: int
    validation_cases: int
    candidate_accuracy: float | None
    previous_accuracy: float | None
    seed: int
    rule: LearningRule = "prototypes"
    registry: tuple[str, ...] = ()
    all_symmetries: bool = False
    made_of: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class LearnedState:
    """Which files hold the learned layer and other sites' neurons in it ("" where it has none),
    its classes, the cases it has since learned, and how many corrections it has followed."""

    file: str
    classes: tuple[str, ...]
    cases: tuple[str, ...] = field(default=())
    foreign: str = ""
    corrections: int = 0


class VersionFolder:
    """The versions below one state folder."""

    def __init__(self, state_dir: Path) -> None:
        self._root = state_dir / "versions"
        self._pointer = state_dir / "current"

    def clean(self) -> None:
        """Undo what a crash left half-done."""
        for replaced in self._root.glob(".*.replaced"):
            target = self._root / replaced.name[1 : -len(".replaced")]
            if not target.exists():
                replaced.rename(target)
        for leftover in self._root.glob(".*"):
            shutil.rmtree(leftover, ignore_errors=True)
        for folder in (self._pointer.parent, *self._root.glob("[!.]*")):
            for unfinished in folder.glob(".*.partial"):  # files that `write_atomically` had begun
                unfinished.unlink(missing_ok=True)

    def names(self) -> list[str]:
        """Versions kept, oldest round first."""
        found = [p.name for p in self._root.glob("[!.]*") if (p / "meta.json").exists()]
        return sorted(found, key=lambda name: (self.report(name).round, name))

    def current(self) -> str | None:
        """Version in service; None before the first one."""
        try:
            return self._pointer.read_text().strip()
        except FileNotFoundError:
            return None

    def require_current(self) -> str:
        """`current`, or ModelNotFound."""
        name = self.current()
        if name is None:
            raise ModelNotFound(
                f"no program was installed in {self._root.parent} yet; check the folder's name, "
                "or wait for the first round"
            )
        return name

    def set_current(self, version: str) -> None:
        """Switch to ``version`` atomically."""
        write_atomically(self._pointer, f"{version}\n".encode())

    def file(self, version: str, name: str) -> Path:
        """Path of a version's file."""
        return self._root / version / name

    def read(self, version: str, name: str) -> bytes:
        """A version's file; raises StateDamaged where it cannot be read."""
        path = self.file(version, name)
        try:
            return path.read_bytes()
        except OSError as error:
            raise StateDamaged(
                f"cannot read {path}: {error.strerror}; restore it from a backup or go back with "
                "`fedqana client rollback`"
            ) from error

    def report(self, version: str) -> InstallReport:
        """What the installation of ``version`` reported."""
        known = {f.name for f in fields(InstallReport)}
        value = self._json(version, "meta.json", known, _LATER)
        codes = {key: tuple(value[key]) for key in ("classes", "registry")}
        return InstallReport(**{**value, **codes})

    def learned(self, version: str) -> LearnedState:
        """Where the learned layer of ``version`` is."""
        value = self._json(version, "state.json", {f.name for f in fields(LearnedState)})
        classes, cases = tuple(value["classes"]), tuple(value["cases"])
        return LearnedState(value["file"], classes, cases, value["foreign"], value["corrections"])

    def foreign(self, version: str) -> dict[str, Neurons]:
        """Other sites' neurons in the learned layer of ``version``, by class code."""
        name = self.learned(version).foreign
        if not name:
            return {}
        content = self.read(version, name)
        if name != _name_of("foreign", content, "npz"):
            raise StateDamaged(
                f"{self.file(version, name)} is not what was written there; restore it from a "
                "backup or go back with `fedqana client rollback`"
            )
        arrays = from_npz(content)
        codes = [name.removesuffix(_WEIGHTS) for name in arrays if name.endswith(_WEIGHTS)]
        return {c: Neurons(arrays[c + _WEIGHTS], arrays[c + _THRESHOLDS]) for c in codes}

    def calibration(self, version: str) -> SiteCalibration:
        """What makes the scores of ``version`` probabilities; none where it came without."""
        path = self.file(version, _CALIBRATION)
        if not path.exists():
            return SiteCalibration()
        try:
            return SiteCalibration.from_bytes(self.read(version, _CALIBRATION))
        except (ValueError, TypeError) as error:
            raise StateDamaged(
                f"{path} is not what was written there; restore it from a backup or go back with "
                "`fedqana client rollback`"
            ) from error

    def add(
        self,
        report: InstallReport,
        program: bytes,
        learned: bytes,
        exemplars: bytes,
        foreign: Mapping[str, Neurons],
        corrections: int,
        calibration: SiteCalibration,
    ) -> None:
        """Write a version whole and make it current; replaces one of the same name."""
        packed = _packed(foreign)
        state = _state_of(learned, report.classes, (), packed, corrections)
        partial = self._root / f".{report.version}.partial"
        target = self._root / report.version
        with writing_to(target):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            (partial / "program.fbz").write_bytes(program)
            (partial / state.file).write_bytes(learned)
            if packed:
                (partial / state.foreign).write_bytes(packed)
            (partial / "exemplars.bin").write_bytes(exemplars)
            (partial / _CALIBRATION).write_bytes(calibration.to_bytes())
            (partial / "meta.json").write_text(json.dumps(report.to_json(), indent=1))
            (partial / "state.json").write_text(json.dumps(asdict(state)))
            if target.exists():  # never a half-removed folder under a version's name
                target.rename(self._root / f".{report.version}.replaced")
        replace_folder(partial, target)
        self.set_current(report.version)
        self.clean()
        self._forget_old()

    def save_learned(
        self,
        version: str,
        learned: bytes,
        classes: tuple[str, ...],
        cases: tuple[str, ...],
        foreign: Mapping[str, Neurons],
        corrections: int,
    ) -> None:
        """Replace the learned layer of ``version``; old or new stands after a crash."""
        packed = _packed(foreign)
        state = _state_of(learned, classes, cases, packed, corrections)
        write_atomically(self.file(version, state.file), learned)
        if packed:
            write_atomically(self.file(version, state.foreign), packed)
        write_atomically(self.file(version, "state.json"), json.dumps(asdict(state)).encode())
        folder = self._root / version
        for other in (*folder.glob("learned-*.fbz"), *folder.glob("foreign-*.npz")):
            if other.name not in (state.file, state.foreign):
                other.unlink()

    def last_other_program(self) -> str:
        """Newest version before the current one with another program than it serves."""
        current = self.require_current()
        names = self.names()
        known = current in names
        serving = self.report(current).serving if known else current
        older = names[: names.index(current)] if known else names
        for name in reversed(older):
            if self.report(name).serving != serving:
                return name
        raise ModelNotFound(
            f"there is no earlier program than {serving} to go back to in {self._root.parent}"
        )

    def _forget_old(self) -> None:
        """Keep the current version, the one before it, and the newest of the last programs."""
        current = self.require_current()
        kept = {current, self.report(current).previous}
        programs: set[str] = set()
        for name in reversed(self.names()):
            serving = self.report(name).serving
            if serving not in programs and len(programs) < _KEPT_PROGRAMS:
                programs.add(serving)
                kept.add(name)
        for name in set(self.names()) - kept:
            gone = (self._root / name).rename(self._root / f".{name}.removed")
            shutil.rmtree(gone, ignore_errors=True)

    def _json(
        self, version: str, name: str, keys: set[str], optional: frozenset[str] = frozenset()
    ) -> dict[str, Any]:
        content = self.read(version, name)
        try:
            value = json.loads(content)
        except ValueError:
            value = None
        if not isinstance(value, dict) or set(value) | optional != keys:
            raise StateDamaged(
                f"{self.file(version, name)} is not what was written there; restore it from a "
                f"backup, or remove the folder of version {version} and go back with "
                "`fedqana client rollback`"
            )
        return value


def _packed(foreign: Mapping[str, Neurons]) -> bytes:
    """Neurons as npz; empty where there are none."""
    if not foreign:
        return b""
    weights = {code + _WEIGHTS: neurons.weights for code, neurons in foreign.items()}
    thresholds = {code + _THRESHOLDS: neurons.thresholds for code, neurons in foreign.items()}
    return to_npz({**weights, **thresholds})


def _name_of(kind: str, content: bytes, suffix: str) -> str:
    return f"{kind}-{sha256_of(content)[:12]}.{suffix}"


def _state_of(
    learned: bytes,
    classes: tuple[str, ...],
    cases: tuple[str, ...],
    foreign: bytes,
    corrections: int,
) -> LearnedState:
    packed = _name_of("foreign", foreign, "npz") if foreign else ""
    return LearnedState(_name_of("learned", learned, "fbz"), classes, cases, packed, corrections)
