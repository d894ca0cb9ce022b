"""A whole state of a site, taken once and never changed: what one answer is computed from."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.akida_runtime import LearningProgram, Program, available_device
from common.akida_runtime.spike_head import SpikeHead
from common.files import sha256_of
from common.test_time_views import over_symmetries
from edge_client.chip_head import in_order
from edge_client.decision import codes_of, combined_scores
from edge_client.local_service.referral import Head
from edge_client.service import EdgeClient
from edge_client.site_calibration import SiteCalibration
from edge_client.versions import VersionFolder

Mark = tuple[object, ...]
"""Equal marks mean that nothing in a state folder changed that a snapshot depends on."""

_MARKED = ("meta.json", "calibration.json", "state.json", "program.fbz")
_HASH_DIGITS = 12


@dataclass(frozen=True)
class ClassScore:
    """One class of an answer, see the .proto."""

    code: str
    score: float
    probability: float


@dataclass(frozen=True)
class Answer:
    """Classes that a head knows, the highest score first, and which head decided."""

    scores: tuple[ClassScore, ...]
    decided_by: Head


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Program, learning layer, classes and version that belong together.

    Parameters
    ----------
    model_version, program_version : str
        In service, and the one whose program runs.
    head : str
        First digits of a SHA-256 over the program with its learning layer, its class codes, and
        whether scores are over all symmetries.
    round : int
    codes : tuple of str
        Columns of `scores`: the program's own classes, then those that only the chip has.
    n_known : int
        The first so many codes are the program's.
    taught : frozenset of str
        Codes that the chip's head was taught.
    image_size : int
        Side of the square that the network sees, in pixels.
    neurons, cases_learned : int
    backend : str
    calibration : SiteCalibration
        What makes scores probabilities.
    all_symmetries : bool
        Whether scores are the mean over an image's eight symmetries.
    fine_tuned : bool
        Whether the program is the site's own, which it made of the coordinator's.
    program, own_head, learner
        The program, its own head on spikes, and a learning layer that is nobody else's.
    layer_codes : tuple of str
        One code for each class of the learning layer.
    """

    model_version: str
    program_version: str
    head: str
    round: int
    codes: tuple[str, ...]
    n_known: int
    taught: frozenset[str]
    image_size: int
    neurons: int
    cases_learned: int
    backend: str
    calibration: SiteCalibration
    all_symmetries: bool
    fine_tuned: bool
    program: Program = field(repr=False)
    own_head: SpikeHead = field(repr=False)
    learner: LearningProgram = field(repr=False)
    layer_codes: tuple[str, ...] = field(repr=False)

    @classmethod
    def of(cls, client: EdgeClient, state_dir: Path) -> "Snapshot":
        """What ``client`` would answer from now; its learning later changes nothing here.

        Hold the folder's lock. Raises ModelNotFound before the first program, and StateDamaged.
        """
        serving = client.in_service()  # the parts of one state, which the client keeps to itself
        report = VersionFolder(state_dir).report(serving.version)
        layer = serving.head.learner.to_bytes()
        return cls(
            model_version=serving.version,
            program_version=report.serving,
            head=_hash_of(layer, serving.head.classes, serving.head.taught, report.all_symmetries),
            round=report.round,
            codes=codes_of(report.registry, serving.head),
            n_known=len(report.registry),
            taught=serving.head.taught,
            image_size=serving.program.input_shape[0],
            neurons=serving.head.learner.neurons,
            cases_learned=len(serving.learned),
            backend=available_device().name,
            calibration=client.calibration(),
            all_symmetries=report.all_symmetries,
            fine_tuned=bool(report.made_of),
            program=serving.program,
            own_head=SpikeHead(serving.program),
            learner=LearningProgram.from_bytes(layer, report.seed),
            layer_codes=serving.head.classes,
        )

    def scores(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Combined scores (len(codes),) of an image (size, size, 3), as `EdgeClient.decide`.

        One pass through the body serves both heads; with ``all_symmetries`` there are eight.
        """
        scores = over_symmetries(self._combined) if self.all_symmetries else self._combined
        return np.asarray(scores(image[None])[0])

    def _combined(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        spikes = self.program.spikes(images)
        potentials = self.learner.classify_spikes(spikes)
        potentials[:, [code not in self.taught for code in self.layer_codes]] = -np.inf
        return combined_scores(
            self.own_head.potentials(spikes),
            in_order(potentials, self.layer_codes, self.codes),
            self.learner.num_weights,
        )

    def answer(self, scores: NDArray[np.float32]) -> Answer:
        """What `scores` say; classes that no head knows are left out."""
        best = int(scores.argmax())
        code = self.codes[best]
        if best >= self.n_known:
            decided_by = Head.CHIP
        else:
            decided_by = Head.BOTH if code in self.taught else Head.PROGRAM
        shares = self.calibration.probabilities(scores[None], self.codes)[0]
        order = np.argsort(-scores, kind="stable")
        return Answer(
            tuple(
                ClassScore(self.codes[k], float(scores[k]), float(shares[k]))
                for k in order
                if np.isfinite(scores[k])
            ),
            decided_by,
        )


def _hash_of(
    layer: bytes, codes: tuple[str, ...], taught: frozenset[str], all_symmetries: bool
) -> str:
    views = ["all symmetries"] if all_symmetries else []
    names = json.dumps([codes, sorted(taught), *views]).encode()
    return sha256_of(layer + names)[:_HASH_DIGITS]


def image_size_of(client: EdgeClient) -> int:
    """Side in pixels of the images that the program in service wants."""
    return int(client.in_service().program.input_shape[0])


def mark_of(state_dir: Path) -> Mark:
    """What of a state folder a snapshot depends on; a handful of system calls."""
    versions = VersionFolder(state_dir)
    current = versions.current()
    files = [state_dir / "cases.journal"]
    if current:
        files += [versions.file(current, name) for name in _MARKED]
    return (current, *map(_mark_of_file, files))


def _mark_of_file(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
