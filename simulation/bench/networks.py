"""Networks that the measurements are made on: trained on pooled lesions, kept as bundles.

One network a seed, and one more for each class that is held out of all training. The seed decides
the split of whole lesions (80/10/10), the initial weights and everything drawn in training;
test lesions choose nothing. What was trained is found again, so a stopped bench goes on; beside
each network stands how and on what it was trained, so that no other is taken for it.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.akida_runtime import DEVICES, Program
from common.arrays import from_npz, to_npz
from common.bundle import (
    CARD,
    FLOAT,
    PROGRAM,
    QUANTIZED,
    Bundle,
    load_bundle,
    make_bundle,
    save_bundle,
)
from common.classes import ClassMap
from common.data.cases import Cases
from common.data.preparation import prepare_cases
from common.data.splits import FRACTIONS, split_by_lesion
from common.errors import SettingsError
from common.files import sha256_of, write_atomically
from common.qana.config import DEMO_CONFIG, ELEMENTS, WHOLE_CONFIG, QanaConfig
from common.qana.convert import convert, keras_spikes_and_logits
from common.qana.fold import fold
from common.qana.networks import Phase, initial_weights, network
from common.qana.quantize import CALIBRATION_IMAGES, observe_ranges
from common.qana.weights import NamedWeights
from common.seeds import derive_seed
from edge_client.site import relabelled
from edge_client.training import TrainSettings, train_locally
from server.model_builder import quantize_after_training
from server.plan import half_cosine
from simulation.sites import read_images

SHAPES: dict[str, QanaConfig] = {
    "bare": QanaConfig(),
    "whole": WHOLE_CONFIG,
    "late-strides": QanaConfig(strides=(1, 2, 2, 2), elements=ELEMENTS),
    "wide": QanaConfig(widths=(48, 96, 128, 256), strides=(2, 2, 2, 1)),
    "half-width": QanaConfig(stem=16, widths=(16, 32, 64, 128), strides=(1, 2, 2, 2)),
    "half-width-early": QanaConfig(stem=16, widths=(16, 32, 64, 128), strides=(2, 2, 2, 1)),
    "thin-start": QanaConfig(stem=16, widths=(16, 64, 128, 256), strides=(1, 2, 2, 2)),
    "three-stages": QanaConfig(widths=(64, 128, 256), strides=(2, 2, 2)),
    "three-stages-deep": QanaConfig(widths=(32, 64, 128), strides=(2, 2, 2), depth=2),
    "small": DEMO_CONFIG,
}
"""What `fedqana bench shapes` compares, and the small network of the demonstration.

"bare" is what runs train by default, without QANA's elements; all others have them, and were
measured with them.
"""

DEFAULT_SHAPE = "bare"

QAT_OPTIONS = ("event_penalty", "distillation", "spike_band", "decorrelation")
"""What only the quantization-aware half of a training depends on."""

Tell = Callable[[str], None]
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class BenchSettings:
    """What determines a network of the bench.

    ``hold_out`` is the code of the class that no training sees, or empty; ``shape`` is one of
    `SHAPES`. Learning rates fall along half a cosine to a fiftieth within each phase, as in a run.
    """

    seed: int
    hold_out: str = ""
    shape: str = DEFAULT_SHAPE
    event_penalty: float = 0.0
    distillation: float = 1.0
    spike_band: float = 0.0
    decorrelation: float = 0.0
    float_epochs: int = 24
    qat_epochs: int = 10
    learning_rate: float = 1e-3
    qat_learning_rate: float = 5e-4
    batch: int = 64

    @property
    def name(self) -> str:
        """Folder of the network below the bench's."""
        name = f"seed-{self.seed}" + (f"-without-{self.hold_out}" if self.hold_out else "")
        if self.shape != "whole":  # as when there was no other of these widths
            name += f"-{self.shape}"
        return name + "".join(f"-{what}-{value:g}" for what, value in self._unusual.items())

    @property
    def floating(self) -> dict[str, Any]:
        """What the float half depends on."""
        names = ("seed", "hold_out", "shape", "float_epochs", "learning_rate", "batch")
        values = {name: getattr(self, name) for name in names}
        if self.shape == "whole":
            values["shape"] = "default"  # its name when there was no other of these widths
        return values

    @property
    def options(self) -> str:
        """Options of `fedqana bench train` that make it."""
        text = f" --seed {self.seed}" + (f" --hold-out {self.hold_out}" if self.hold_out else "")
        if self.shape != DEFAULT_SHAPE:
            text += f" --shape {self.shape}"
        return text + "".join(f" --{what} {value:g}" for what, value in self._unusual.items())

    @property
    def _unusual(self) -> dict[str, float]:
        """Options of the quantization-aware half that are not the usual ones."""
        return {
            name.replace("_", "-"): getattr(self, name)
            for name in QAT_OPTIONS
            if getattr(self, name) != BenchSettings.__dataclass_fields__[name].default
        }

    @property
    def config(self) -> QanaConfig:
        """The network's shape."""
        return SHAPES[self.shape]


def bench_cases(
    data: str, seed: int, classes: ClassMap, size: int, cache: Path | None
) -> dict[str, Cases]:
    """Training, validation and test cases of whole lesions of all sources together."""
    split = split_by_lesion(read_images(data, seed, classes), FRACTIONS, seed)
    return {part: prepare_cases(split[part], classes, size=size, cache=cache) for part in PARTS}


def known_codes(classes: ClassMap, hold_out: str) -> tuple[str, ...]:
    """The classes that a network is trained on."""
    return tuple(code for code in classes.codes if code != hold_out)


def train_network(
    settings: BenchSettings, cases: dict[str, Cases], classes: ClassMap, out: Path, tell: Tell
) -> Bundle:
    """The bundle of a trained and converted network, from ``out`` where it was made before.

    Raises SettingsError where ``out`` has one of this name that was trained otherwise.
    """
    folder = out / settings.name
    _claim(settings, cases["train"], out)
    if (folder / CARD).exists():
        return load_bundle(folder)
    codes = known_codes(classes, settings.hold_out)
    train = relabelled(cases["train"], classes, codes)
    stage = _stage(settings, out)
    if stage.exists():
        floating = from_npz(stage.read_bytes())
    elif (found := _same_float_half(settings, cases["train"], out)) is not None:
        floating = found
    else:
        first = initial_weights(settings.config, len(codes), settings.seed)
        floating = _trained("float", first, settings, train, codes, tell)
        write_atomically(stage, to_npz(floating))
    chosen = np.random.default_rng(0).permutation(len(train))[:CALIBRATION_IMAGES]
    ranges = observe_ranges(fold(floating, settings.config), settings.config, train.images[chosen])
    upper = tuple(float(value) for value in ranges)
    quantized = quantize_after_training(floating, upper, settings.config)
    quantized = _trained("qat", quantized, settings, train, codes, tell, floating)
    program = convert(quantized, settings.config, len(codes))
    bundle = make_bundle(
        program.to_bytes(),
        quantized,
        floating,
        run=f"bench-{settings.name}",
        version=settings.float_epochs + settings.qat_epochs,
        parent=0,
        phase="qat",
        classes=codes,
        config=settings.config,
        seed=settings.seed,
        ranges=upper,
        fit={device: program.fit_report(device).to_json() for device in DEVICES},
    )
    save_bundle(bundle, folder)
    stage.unlink(missing_ok=True)
    return bundle


def _record(settings: BenchSettings, out: Path) -> Path:
    return out / f"{settings.name}.json"


def _stage(settings: BenchSettings, out: Path) -> Path:
    return out / f"{settings.name}-float.npz"


def lesions_hash(cases: Cases) -> str:
    """What a network's record calls the cases that it was trained on."""
    return sha256_of(cases.images.tobytes() + cases.labels.tobytes())


def _noted(settings: BenchSettings, out: Path) -> dict[str, Any]:
    file = _record(settings, out)
    try:
        return dict(json.loads(file.read_bytes()))
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"{file}, which says how {settings.name} was trained, cannot be read; "
            f"{_start_again(settings, out)}"
        ) from error


def _start_again(settings: BenchSettings, out: Path) -> str:
    there = [out / settings.name, _record(settings, out), _stage(settings, out)]
    names = ", ".join(str(path) for path in there if path.exists())
    return f"remove {names} to train it again" if names else "train it again"


def _claim(settings: BenchSettings, train: Cases, out: Path) -> None:
    """Note how the network of this name is trained; SettingsError where it was otherwise."""
    file = _record(settings, out)
    mine = {
        **asdict(settings),
        "config": settings.config.model_dump(mode="json"),
        "training_cases": lesions_hash(train),
    }
    if not file.exists() and not (out / settings.name).exists():
        _stage(settings, out).unlink(missing_ok=True)
        write_atomically(file, json.dumps(mine, indent=2).encode())
        return
    noted = _noted(settings, out)
    usual = asdict(BenchSettings(settings.seed))
    for name, value in mine.items():
        other = noted.get(name, usual.get(name))  # settings that came later had their default
        if other != value:
            what = "on other images" if name == "training_cases" else f"with {name} {other}"
            raise SettingsError(
                f"{out / settings.name} was begun {what}; give another --out, or "
                f"{_start_again(settings, out)}"
            )


def check_lesions(settings: BenchSettings, train: Cases, out: Path) -> None:
    """SettingsError unless the network was trained on these cases, so not on any other part's."""
    if _noted(settings, out).get("training_cases") != lesions_hash(train):
        raise SettingsError(
            f"{out / settings.name} was trained on other images than --data now has; give the "
            "data that it was trained on, or another --out"
        )


def _same_float_half(settings: BenchSettings, train: Cases, out: Path) -> NamedWeights | None:
    """Float weights of a network that differs in its quantization-aware half only."""
    usual = BenchSettings(settings.seed, settings.hold_out, settings.shape)
    if not (out / usual.name / CARD).exists():
        return None
    noted = _noted(usual, out)
    same = {**settings.floating, "training_cases": lesions_hash(train)}
    if {name: noted.get(name) for name in same} != same:
        return None
    return load_bundle(out / usual.name).weights(FLOAT)


def _trained(
    phase: Phase,
    weights: NamedWeights,
    settings: BenchSettings,
    train: Cases,
    codes: tuple[str, ...],
    tell: Tell,
    teacher: NamedWeights | None = None,
) -> NamedWeights:
    """Weights after all epochs of a phase; each starts the optimizer anew, as a round does."""
    if phase == "float":
        epochs, rate, purpose = settings.float_epochs, settings.learning_rate, "bench"
    else:
        epochs, rate, purpose = settings.qat_epochs, settings.qat_learning_rate, "qat"
    for epoch in range(epochs):
        result = train_locally(
            weights,
            train,
            settings.config,
            len(codes),
            TrainSettings(
                phase=phase,
                epochs=1,
                batch=settings.batch,
                learning_rate=half_cosine(rate, epoch, epochs),
                prior_strength=1.0,
                proximal=0.0,
                seed=derive_seed(settings.seed, purpose, epoch),
                **{name: getattr(settings, name) for name in QAT_OPTIONS},
            ),
            teacher,
        )
        weights = result.weights
        tell(
            f"{settings.name} {phase} epoch {epoch + 1}/{epochs}: loss {result.loss:.3f}, "
            f"{result.seconds:.0f} s"
        )
    return weights


@dataclass(frozen=True)
class Seen:
    """What a network's two halves make of a set of cases.

    Parameters
    ----------
    spikes : uint8 array, shape (n, units)
        Of the Akida program; the learning layer's input.
    scores : float32 array, shape (n, classes the network knows)
        Of the program's own head.
    float_scores, quantized_scores : float32 arrays of the same shape
    quantized_spikes : uint8 array, shape (n, units)
    labels : int64 array, shape (n,)
        Indices into all classes, the held-out one included.
    """

    spikes: NDArray[np.uint8]
    scores: NDArray[np.float32]
    float_scores: NDArray[np.float32]
    quantized_scores: NDArray[np.float32]
    quantized_spikes: NDArray[np.uint8]
    labels: NDArray[np.int64]


def seen_by(bundle: Bundle, cases: Cases, folder: Path, part: str) -> Seen:
    """Scores and spikes of ``cases``, kept in ``folder`` by the bundle's and the cases' hash."""
    key = sha256_of(bundle.card.to_bytes() + cases.images.tobytes())[:16]
    file = folder / f"seen-{part}-{key}.npz"
    if file.exists():
        return Seen(**from_npz(file.read_bytes()), labels=cases.labels)
    card = bundle.card
    floating = network("float", card.config, len(card.classes))
    floating.set_weights(bundle.weights(FLOAT))
    quantized_spikes, quantized_scores = keras_spikes_and_logits(
        bundle.weights(QUANTIZED), card.config, len(card.classes), cases.images
    )
    program = Program.from_bytes(bundle.files[PROGRAM])
    arrays: dict[str, NDArray[Any]] = {
        "spikes": program.spikes(cases.images),
        "scores": program.predict_potentials(cases.images),
        "float_scores": floating.logits(cases.images),
        "quantized_scores": quantized_scores,
        "quantized_spikes": quantized_spikes,
    }
    write_atomically(file, to_npz(arrays))
    return Seen(**arrays, labels=cases.labels)
