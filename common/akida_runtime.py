"""Akida programs: run, inspect, map and go on learning. The only module that imports ``akida``.

Figures in this module were measured with akida 2.19.3 on its software backend.
"""

import hashlib
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import akida
import numpy as np
from numpy.typing import NDArray

from common.errors import BundleDamaged, DeviceError, ModelDoesNotFit, SettingsError
from common.files import sha256_of

DEVICES = ("AKD1000", "AKD1500")
_BATCH = 256
_SEAL = b"\nsha256:"
_SEAL_LENGTH = len(_SEAL) + 64
_LEARNING_LAYER = "learning"
_LEARNED = ("act_step", "threshold", "threshold_learning", "thswap", "weights")
"""Everything that a learning layer knows; plasticity is in ``thswap``."""


@dataclass(frozen=True)
class FitReport:
    """Whether and how a program maps onto a device in one hardware sequence.

    ``reason`` names the first layer that does not map and is empty where ``fits``. ``nps`` counts
    neural processors without the input converter (HRC), ``nps_by_type`` includes it.
    ``macs`` are multiply-accumulates of one image, before event sparsity.
    ``external_memory`` is in bytes. Values are None where the program does not fit.
    """

    device: str
    fits: bool
    reason: str
    layers: int
    nps: int | None
    nps_by_type: dict[str, int]
    sequences: int | None
    passes: int | None
    program_bytes: int | None
    external_memory: int | None
    macs: int
    layers_table: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """This report as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class DeviceDescription:
    """Where programs run: ``real`` is False for the software backend."""

    name: str
    real: bool


@dataclass(frozen=True)
class Measurement:
    """Latency and power of one image, None where there is nothing to measure them with.

    ``power_mw`` is the mean reading during inference and includes ``floor_mw``, what the
    board draws when idle.
    """

    device: DeviceDescription
    latency_ms: float | None = None
    power_mw: float | None = None
    floor_mw: float | None = None


def available_device() -> DeviceDescription:
    """The first Akida device of this machine, else the software backend."""
    found = akida.devices()
    if found:
        return DeviceDescription(str(found[0].desc), True)
    return DeviceDescription(f"software backend (akida {akida.__version__})", False)


class Program:
    """A network as an Akida v1 program: image layers, a 1-bit spike layer and a head.

    Parameters
    ----------
    model : akida.Model
        What the converter returned, with at least a spike layer and a head.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._body = akida.Model(layers=model.layers)
        self._body.pop_layer()
        _free_with(self, [self._model, self._body])
        self._last_spikes: tuple[bytes, NDArray[np.uint8]] | None = None

    @classmethod
    def from_bytes(cls, fbz: bytes) -> "Program":
        """A program from what `to_bytes` returned.

        Raises BundleDamaged unless the bytes are exactly those: akida itself ends the process
        with a segmentation fault on about a third of all damaged files, and loads others
        without noticing, so nothing unverified is handed to it.
        """
        content, seal = fbz[:-_SEAL_LENGTH], fbz[-_SEAL_LENGTH:]
        if seal != _SEAL + sha256_of(content).encode():
            raise BundleDamaged(
                "the Akida program does not match the checksum at its end; fetch or convert it anew"
            )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "program.fbz"
            path.write_bytes(content)
            try:
                return cls(akida.Model(str(path)))
            except (RuntimeError, ValueError) as error:
                raise BundleDamaged(
                    f"akida {akida.__version__} cannot read this program ({error}); convert it anew"
                ) from error

    @classmethod
    def from_file(cls, path: Path) -> "Program":
        """`from_bytes` of a file; raises BundleDamaged also where it cannot be read."""
        try:
            return cls.from_bytes(path.read_bytes())
        except OSError as error:
            raise BundleDamaged(f"cannot read {path}: {error.strerror}") from error
        except BundleDamaged as error:
            raise BundleDamaged(f"{path}: {error}") from error

    def to_bytes(self) -> bytes:
        """Akida's own .fbz format, followed by its SHA-256 (Akida's tools ignore the rest).

        Equal programs give equal bytes.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "program.fbz"
            self._model.save(str(path))
            content = path.read_bytes()
        return content + _SEAL + sha256_of(content).encode()

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names from the input to the head."""
        return tuple(layer.name for layer in self._model.layers)

    @property
    def n_layers(self) -> int:
        """Number of layers, the head included."""
        return int(self._model.layer_count)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Height, width, channels."""
        return tuple(self._model.input_shape)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the head's output, (1, 1, classes)."""
        return tuple(self._model.output_shape)

    @property
    def n_spikes(self) -> int:
        """Number of inputs of the head."""
        return int(np.prod(self._body.output_shape))

    def predict_potentials(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Dequantized outputs of the head, i.e. logits, float32 (n, classes).

        ``images`` is uint8 (n, height, width, 3).
        """
        model = _where_it_runs(self._model)
        parts = [model.predict(batch) for batch in _batches(images)]
        return _flat(parts, int(np.prod(self.output_shape)), np.float32)

    def spikes(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What the head sees of ``images`` (n, height, width, 3): uint8 (n, n_spikes).

        The last set of several images is remembered: a site asks for its held-back cases again
        and again while their spikes stay the same.
        """
        if len(images) < 2:
            return self._forward_spikes(images)
        key = hashlib.sha256(images.tobytes()).digest()
        if self._last_spikes is None or self._last_spikes[0] != key:
            self._last_spikes = (key, self._forward_spikes(images))
        return self._last_spikes[1].copy()

    def _forward_spikes(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        body = _where_it_runs(self._body)
        return _flat([body.forward(b) for b in _batches(images)], self.n_spikes, np.uint8)

    def mean_spikes(self, images: NDArray[np.uint8]) -> dict[str, float]:
        """Mean number of non-zero outputs (events) per image of each layer before the head.

        One forward pass per layer: ``images`` should be a small sample, at least one image.
        """
        events: dict[str, float] = {}
        with _temporary(akida.Model(layers=self._body.layers)) as model:
            for _ in range(model.layer_count):
                parts = [np.count_nonzero(model.forward(batch)) for batch in _batches(images)]
                events[model.layers[-1].name] = sum(parts) / len(images)
                model.pop_layer()
        return dict(reversed(events.items()))

    def fit_report(self, device_name: str) -> FitReport:
        """How this program maps onto a virtual device (``AKD1000`` or ``AKD1500``).

        ``hw_only`` mapping, so one hardware sequence: proves fit, says nothing about speed.
        """
        with _temporary(akida.Model(layers=self._model.layers)) as model:
            return _fit_of(model, device_name)

    def require_fit(self, device_name: str) -> FitReport:
        """`fit_report`, or ModelDoesNotFit with the layer's name."""
        report = self.fit_report(device_name)
        if not report.fits:
            raise ModelDoesNotFit(
                f"the program does not map onto {device_name}: {report.reason} Make that layer "
                "narrower or choose the other device."
            )
        return report

    def measure(self, images: NDArray[np.uint8]) -> Measurement:
        """Latency and power over ``images`` on the real device; None values without one."""
        description = available_device()
        if not description.real:
            return Measurement(description)
        device = akida.devices()[0]
        powers, floor = {}, None
        try:
            with _temporary(akida.Model(layers=self._model.layers)) as model:
                meter = getattr(getattr(device, "soc", None), "power_meter", None)
                if meter is not None:
                    device.soc.power_measurement_enabled = True
                model.map(device, hw_only=True)
                model.forward(images)
                statistics = model.statistics
                frames = statistics.fps
                if meter is not None:
                    powers, floor = dict(statistics.powers), float(meter.floor)
        except RuntimeError as error:
            raise DeviceError(f"{description.name} refused the measurement: {error}") from error
        return Measurement(
            description,
            latency_ms=1000.0 / frames if frames else None,
            power_mw=powers.get("Avg"),
            floor_mw=floor,
        )


class LearningProgram:
    """A program whose head was replaced by a layer that learns on the chip, case by case.

    Akida's learning rule ("Only layers receiving binary inputs can be trained") looks at nothing
    but the spikes, so the software backend keeps the learning layer as a model of its own and
    computes an image's spikes once. That is exactly equal to learning through the whole
    program (tested), and takes 40 to 160 microseconds a case beside the body's forward pass.
    With a real device the whole program is mapped and learns there.

    Akida draws a new neuron's weights at random and offers no seed: they are overwritten with
    ones drawn from ``(seed, neuron)``. Which connections a neuron moves depends on a hidden
    generator that a model starts with and a file does not hold: every call of `learn` begins
    with a copy of the model, which starts it anew. So what one call learns depends on the
    stored state and its cases alone, and a program that was saved and loaded in between goes on
    as one that was not.

    Parameters
    ----------
    program : Program
        Its head is dropped.
    tail : akida.Model
        Input layer and compiled learning layer.
    seed : int
        At least 0; of the weights with which neurons begin.
    """

    def __init__(self, program: Program, tail: Any, seed: int) -> None:
        self._program = program
        self._tail = tail
        self._seed = seed
        self._tails = [tail]
        _free_with(self, self._tails)

    @classmethod
    def create(
        cls,
        program: Program,
        n_classes: int,
        neurons_per_class: int,
        num_weights: int,
        competition: float,
        seed: int,
    ) -> "LearningProgram":
        """A program that has learned nothing yet.

        Each neuron has ``num_weights`` connections among the spikes; ``competition`` (0 to 1)
        is how much a neuron must differ from those that answer already.
        Raises SettingsError where the numbers do not fit the program.
        """
        if not 1 <= num_weights <= program.n_spikes or min(n_classes, neurons_per_class) < 1:
            raise SettingsError(
                f"{n_classes} classes x {neurons_per_class} neurons with {num_weights} weights do "
                f"not fit a program with {program.n_spikes} spikes"
            )
        tail = _learning_model(
            [_spike_input(program)], n_classes, neurons_per_class, num_weights, competition
        )
        learner = cls(program, tail, seed)
        learner._draw_weights(0)
        return learner

    @classmethod
    def from_bytes(cls, fbz: bytes, seed: int) -> "LearningProgram":
        """From what `to_bytes` returned; goes on learning where it stopped.

        ``seed`` is the one it was created with. Raises BundleDamaged as `Program.from_bytes`,
        and where the program has no learning layer.
        """
        program = Program.from_bytes(fbz)
        learning = program._model.learning
        if learning is None:
            raise BundleDamaged("the Akida program has no learning layer; learn its cases anew")
        n_classes = int(learning.num_classes)
        tail = _learning_model(
            [_spike_input(program)],
            n_classes,
            int(np.prod(program.output_shape)) // n_classes,
            int(learning.num_weights),
            float(learning.learning_competition),
        )
        _copy_learned(program._model, tail)
        return cls(program, tail, seed)

    def to_bytes(self) -> bytes:
        """`Program.to_bytes` of `complete`."""
        return self.complete().to_bytes()

    def complete(self) -> Program:
        """What is deployed and mapped: the body with the learning layer as it is now."""
        return Program(self._whole())

    @property
    def n_classes(self) -> int:
        """Number of classes the layer has now."""
        return int(self._tail.learning.num_classes)

    @property
    def neurons(self) -> int:
        """Number of neurons of all classes."""
        return int(np.prod(self._tail.output_shape))

    @property
    def neurons_per_class(self) -> int:
        """Neurons that share a label; those of class k are k * neurons_per_class onwards."""
        return self.neurons // self.n_classes

    @property
    def num_weights(self) -> int:
        """Connections of each neuron."""
        return int(self._tail.learning.num_weights)

    @property
    def weights(self) -> NDArray[np.uint8]:
        """Connections, 0 or 1, uint8 (spikes, neurons); each column has num_weights ones."""
        weights = self._tail.layers[-1].get_variable("weights")
        return np.asarray(weights, np.uint8).reshape(-1, self.neurons)

    def spikes(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """As `Program.spikes`."""
        return self._program.spikes(images)

    def learn(
        self,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        spikes: NDArray[np.uint8] | None = None,
    ) -> None:
        """Learn cases one after the other, in order; each call is reproducible by itself.

        Parameters
        ----------
        images : uint8 array, shape (n, height, width, 3)
        labels : int64 array, shape (n,)
            In [0, n_classes); Akida would ignore others silently, so they are a ValueError.
        spikes : uint8 array, shape (n, n_spikes), optional
            The images' spikes where the caller has them; saves the body's pass in software.
        """
        if len(labels) and not 0 <= labels.min() <= labels.max() < self.n_classes:
            raise ValueError(f"a label is outside the {self.n_classes} classes")
        if not len(labels):
            return
        if available_device().real:
            self._learn_through_whole(images, labels, akida.devices()[0])
            return
        inputs = self.spikes(images) if spikes is None else spikes
        before, self._tail = self._tail, akida.Model(layers=self._tail.layers)
        _free(before)
        self._tails[:] = [self._tail]
        self._tail.fit(inputs[:, None, None, :], labels.astype(np.int32))

    def classify(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Highest potential among each class's neurons, float32 (n, n_classes).

        A potential is the number of a neuron's connections that spike, 0 to num_weights.
        """
        return self.classify_spikes(self.spikes(images))

    def classify_spikes(self, spikes: NDArray[np.uint8]) -> NDArray[np.float32]:
        """`classify` of images whose spikes (n, n_spikes) are known already."""
        inputs = spikes[:, None, None, :]
        parts = [self._tail.forward(batch) for batch in _batches(inputs)]
        potentials = _flat(parts, self.neurons, np.float32)
        grouped = potentials.reshape(-1, self.n_classes, self.neurons_per_class)
        return np.asarray(grouped.max(axis=2), np.float32)

    def add_class(self) -> int:
        """Add the neurons of one more class, those learned stay; returns its index."""
        known = self.neurons
        self._tail.add_classes(1)
        self._draw_weights(known)
        return self.n_classes - 1

    def _draw_weights(self, first: int) -> None:
        """Give the neurons from ``first`` on their seeded connections."""
        layer = self._tail.layers[-1]
        weights = np.array(layer.get_variable("weights"))
        for neuron in range(first, self.neurons):
            generator = np.random.default_rng([self._seed, neuron])
            chosen = generator.choice(weights.shape[2], self.num_weights, replace=False)
            weights[0, 0, :, neuron] = 0
            weights[0, 0, chosen, neuron] = 1
        layer.set_variable("weights", weights)

    def _whole(self) -> Any:
        model = _learning_model(
            self._program._body.layers,
            self.n_classes,
            self.neurons_per_class,
            self.num_weights,
            float(self._tail.learning.learning_competition),
        )
        _copy_learned(self._tail, model)
        return model

    def _learn_through_whole(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], device: Any
    ) -> None:
        """`learn` with the whole program on ``device``, in software where that is None."""
        try:
            with _temporary(self._whole()) as whole:
                whole.map(device, hw_only=device is not None)
                whole.fit(images, labels.astype(np.int32))
                _copy_learned(whole, self._tail)
        except RuntimeError as error:
            raise DeviceError(f"the Akida device stopped while learning: {error}") from error
        if (self.weights.sum(axis=0) != self.num_weights).any():
            raise DeviceError("the Akida device returned weights that no learning can produce")


def _where_it_runs(model: Any) -> Any:
    """``model``, mapped onto the real device where this machine has one, else in software.

    ModelDoesNotFit where it does not map; the message names the layer.
    """
    found = akida.devices()
    if found and model.device is None:
        try:
            model.map(found[0], hw_only=True)
        except RuntimeError as error:
            raise ModelDoesNotFit(
                f"the program does not map onto {found[0].desc}: {error} Use a network that fits "
                "this chip."
            ) from error
    return model


def _free(model: Any) -> None:
    """Give a model's memory back.

    akida 2.19.3 keeps the layers of every model that goes out of use (0.8 MB for the default
    network, measured), because they refer to each other; popping them frees them.
    """
    while model.layer_count:
        model.pop_layer()


def _free_all(models: list[Any]) -> None:
    for model in models:
        _free(model)


def _free_with(owner: object, models: list[Any]) -> None:
    """Free what ``models`` holds then when ``owner`` goes out of use."""
    weakref.finalize(owner, _free_all, models).atexit = False


@contextmanager
def _temporary(model: Any) -> Iterator[Any]:
    """A model that is freed at the end of the block."""
    try:
        yield model
    finally:
        _free(model)


def _fit_of(model: Any, device_name: str) -> FitReport:
    """Map ``model`` onto a virtual device and report how."""
    reason = ""
    try:
        model.map(_virtual_device(device_name), hw_only=True)
    except RuntimeError as error:
        reason = str(error)
    fits = not reason
    counts = {kind.name: n for kind, n in model.component_count.items()} if fits else {}
    return FitReport(
        device=device_name,
        fits=fits,
        reason=reason,
        layers=int(model.layer_count),
        nps=sum(n for kind, n in counts.items() if kind != "HRC") if fits else None,
        nps_by_type=counts,
        sequences=len(model.sequences) if fits else None,
        passes=sum(len(s.passes) for s in model.sequences) if fits else None,
        program_bytes=sum(len(s.program) for s in model.sequences) if fits else None,
        external_memory=int(model.external_memory_size) if fits else None,
        macs=sum(_macs(layer) for layer in model.layers),
        layers_table=[_layer_row(layer, fits) for layer in model.layers],
    )


def _virtual_device(name: str) -> Any:
    if name not in DEVICES:
        raise SettingsError(f"unknown device {name!r}; known are {', '.join(DEVICES)}")
    return akida.AKD1000() if name == "AKD1000" else akida.AKD1500()


def _learning_model(
    layers: list[Any], n_classes: int, neurons_per_class: int, num_weights: int, competition: float
) -> Any:
    model = akida.Model(layers=layers)
    units = n_classes * neurons_per_class
    model.add(akida.FullyConnected(units, _LEARNING_LAYER, weights_bits=1, activation=False))
    rule = akida.AkidaUnsupervised(num_weights, n_classes, learning_competition=competition)
    model.compile(rule)
    return model


def _spike_input(program: Program) -> Any:
    return akida.InputData((1, 1, program.n_spikes), input_bits=1)


def _copy_learned(source: Any, target: Any) -> None:
    for name in _LEARNED:
        target.layers[-1].set_variable(name, source.layers[-1].get_variable(name))


def _batches(inputs: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Pieces small enough that a layer's activations of one piece take little memory."""
    return [inputs[i : i + _BATCH] for i in range(0, len(inputs), _BATCH)]


def _flat(parts: list[Any], width: int, dtype: type[Any]) -> NDArray[Any]:
    """Outputs (n, 1, 1, width) of successive batches as one array (n, width)."""
    rows = [np.asarray(part, dtype).reshape(-1, width) for part in parts]
    return np.concatenate([np.zeros((0, width), dtype), *rows])


def _layer_row(layer: Any, mapped: bool) -> dict[str, Any]:
    """One line of a fit report's table."""
    names = layer.get_variable_names()
    nodes = layer.mapping.nps if mapped and layer.mapping is not None else []
    return {
        "name": layer.name,
        "type": layer.parameters.layer_type.name,
        "input_shape": list(layer.input_dims),
        "output_shape": list(layer.output_dims),
        "kernel": list(layer.get_variable("weights").shape) if "weights" in names else None,
        "nps": len(nodes) if mapped else None,
    }


def _macs(layer: Any) -> int:
    """Multiply-accumulates of one image; akida's own ``macs`` is 0 for every v1 layer."""
    names = layer.get_variable_names()
    if "weights" not in names:
        return 0
    kernel = int(np.prod(layer.get_variable("weights").shape))
    if "weights_pw" in names:
        kernel += int(np.prod(layer.get_variable("weights_pw").shape))
    parameters = layer.parameters
    if "stride_x" not in dir(parameters):  # a dense layer
        return kernel
    height, width, _ = layer.input_dims
    if int(parameters.padding) == int(akida.Padding.Valid):
        height -= parameters.kernel_height - 1
        width -= parameters.kernel_width - 1
    return kernel * int(-(-height // parameters.stride_y) * -(-width // parameters.stride_x))
