"""A bundle's network on any labelled folder, by any of its three forms, chunk by chunk."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from common.akida_runtime import Program, available_device
from common.bundle import FLOAT, PROGRAM, QUANTIZED, Bundle
from common.classes import ClassMap
from common.data.cases import LesionImage
from common.data.preparation import Cropping, centre_crop, prepare_cases
from common.data.readers import read_lesion_images
from common.errors import DataUnfit, UnknownLabel
from common.metrics import summarize
from common.qana.convert import Agreement, agreement, keras_spikes_and_logits
from common.qana.networks import network
from common.saliency.choice import CENTRE, CropChoice, crop_of
from common.score_counts import ScoreCounts
from common.test_time_views import over_symmetries
from server.judged_probabilities import (
    JudgedProbabilities,
    ScoredCases,
    judge_probabilities,
)

Backend = Literal["float", "quantized", "akida"]
BACKENDS: tuple[Backend, ...] = ("float", "quantized", "akida")

CHUNK = 256
"""Images decoded and evaluated at a time: memory does not grow with the folder."""

EVENT_IMAGES = 100
"""Enough for a mean: each layer is one more forward pass."""

Logits = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True)
class LabelledFolder:
    """The images of a folder that a model has classes for.

    ``skipped`` counts the images that were left out by their label.
    """

    images: list[LesionImage]
    classes: ClassMap
    skipped: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """What a backend scored; ``agreement`` with the quantized Keras model where asked for."""

    backend: str
    counts: ScoreCounts
    classes: tuple[str, ...]
    probabilities: JudgedProbabilities
    agreement: Agreement | None = None

    def to_json(self) -> dict[str, Any]:
        """Backend, metrics, confusion matrix and calibration as plain JSON values."""
        return {
            "backend": self.backend,
            "classes": list(self.classes),
            "metrics": summarize(self.counts, self.classes).to_json(),
            "confusion": self.counts.confusion.tolist(),
            "probabilities": self.probabilities.to_json(),
            "agreement": self.agreement.to_json() if self.agreement else None,
        }


def read_folder(folder: Path, classes: ClassMap, skip_unknown: bool) -> LabelledFolder:
    """List the labelled images of ``folder`` (any layout of `common.data.readers`).

    Raises
    ------
    UnknownLabel
        A label that the model has no class for, unless ``skip_unknown``.
    DataUnfit
        No image is left.
    DataNotFound, DataUnreadable
        As `read_lesion_images`.
    """
    if not skip_unknown:
        try:
            images = read_lesion_images(folder, classes, for_training=False)
            return LabelledFolder(images, classes)
        except UnknownLabel as error:
            raise UnknownLabel(f"{error}; --skip-unknown leaves such images out") from error
    labels = {image.label for image in read_lesion_images(folder, classes, strict=False)}
    widened = ClassMap((*classes.codes, *sorted(labels - set(classes.codes))))
    images = read_lesion_images(folder, widened, for_training=False)
    known = [image for image in images if image.label in classes]
    if not known:
        raise DataUnfit(
            f"no image in {folder} has one of the model's classes ({', '.join(classes.codes)})"
        )
    skipped = Counter(image.label for image in images if image.label not in classes)
    return LabelledFolder(known, classes, dict(sorted(skipped.items())))


def evaluate_bundle(
    bundle: Bundle,
    folder: LabelledFolder,
    backend: Backend,
    *,
    validation: LabelledFolder | None = None,
    with_agreement: bool = False,
    all_symmetries: bool = False,
    crop: Cropping = centre_crop,
    cache: Path | None = None,
    advance: Callable[[int], None] = lambda images: None,
) -> Evaluation:
    """Score a folder's images.

    Parameters
    ----------
    bundle : Bundle
    folder : LabelledFolder
        With the bundle's own class map.
    backend : "float", "quantized" or "akida"
    validation : LabelledFolder, optional
        Images on which the temperature is fitted, those of the folder's lesions left out. Without
        them each image is judged by a temperature of the folder's other lesions.
    with_agreement : bool
        Compare spikes and predictions of the Akida program with the quantized Keras model's;
        for the backend "akida" only.
    all_symmetries : bool
        Judge the mean of the scores over each image's eight symmetries.
    crop : callable
        Of each image; that which the model was trained with.
    cache : Path, optional
        Folder for prepared images.
    advance : callable
        Told the number of images of every chunk that is done.

    Raises BundleDamaged where a file of the bundle cannot be used, DataUnreadable where an
    image cannot be decoded.
    """
    classes, size = bundle.card.classes, bundle.card.config.input_size
    name, plain_logits = _backend(bundle, backend)
    logits_of = over_symmetries(plain_logits) if all_symmetries else plain_logits
    comparison = _Comparison(bundle) if with_agreement else None
    scored = []
    for part in filter(None, (folder, validation)):
        scores, labels = [], []
        lesions: list[str] = []
        for first in range(0, len(part.images), CHUNK):
            chunk = part.images[first : first + CHUNK]
            cases = prepare_cases(chunk, part.classes, size=size, crop=crop, cache=cache)
            logits = logits_of(cases.images)
            scores.append(logits)
            labels.append(cases.labels)
            lesions += cases.lesion_ids
            if comparison is not None and part is folder:
                alone = plain_logits(cases.images) if all_symmetries else logits
                comparison.add(cases.images, alone)
            advance(len(chunk))
        scored.append(ScoredCases(np.concatenate(scores), np.concatenate(labels), tuple(lesions)))
    judged = scored[0]
    return Evaluation(
        name,
        ScoreCounts.from_logits(judged.scores, judged.labels),
        classes,
        judge_probabilities(*scored),
        comparison.result() if comparison else None,
    )


def events_on(bundle: Bundle, data: Path) -> tuple[dict[str, float], int]:
    """Mean events of each layer of the program, and the number of images of ``data`` it is over.

    At most `EVENT_IMAGES`, evenly spaced over the folder, cropped as the model was trained. Raises
    as `read_folder` and `crop_of`.
    """
    folder = read_folder(data, bundle.card.class_map(), skip_unknown=True)
    images = folder.images[:: max(1, -(-len(folder.images) // EVENT_IMAGES))]
    crop = crop_of(CropChoice(bundle.card.crop or CENTRE.name), data=data)
    size = bundle.card.config.input_size
    cases = prepare_cases(images, folder.classes, size=size, crop=crop)
    return Program.from_bytes(bundle.files[PROGRAM]).mean_spikes(cases.images), len(cases)


def _backend(bundle: Bundle, backend: Backend) -> tuple[str, Logits]:
    """What runs the network, in words, and its logits as a function of images."""
    config, n_classes = bundle.card.config, len(bundle.card.classes)
    if backend == "akida":
        name = available_device().name
        return name, Program.from_bytes(bundle.files[PROGRAM]).predict_potentials
    if backend == "float":
        floating = network("float", config, n_classes)
        floating.set_weights(bundle.weights(FLOAT))
        return f"float network (tensorflow {version('tensorflow')})", floating.logits
    weights = bundle.weights(QUANTIZED)
    return (
        f"quantized network (quantizeml {version('quantizeml')})",
        lambda images: keras_spikes_and_logits(weights, config, n_classes, images)[1],
    )


class _Comparison:
    """Collects what program and quantized Keras model compute of the same images."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._weights = bundle.weights(QUANTIZED)
        self._program = Program.from_bytes(bundle.files[PROGRAM])
        self._sides: list[tuple[NDArray[Any], ...]] = []

    def add(self, images: NDArray[np.uint8], program_logits: NDArray[np.float32]) -> None:
        card = self._bundle.card
        keras_side = keras_spikes_and_logits(self._weights, card.config, len(card.classes), images)
        self._sides.append((*keras_side, self._program.spikes(images), program_logits))

    def result(self) -> Agreement:
        return agreement(*(np.concatenate(side) for side in zip(*self._sides, strict=True)))
