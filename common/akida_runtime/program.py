"""An Akida program: run, inspect, map and measure it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import akida
import numpy as np
from numpy.typing import NDArray

from common.akida_runtime.devices import DeviceDescription, available_device, where_it_runs
from common.akida_runtime.fit import FitReport, fit_of
from common.akida_runtime.models import batches, flat, free_with, temporary
from common.akida_runtime.spike_memory import SpikeMemory, body_key
from common.errors import BundleDamaged, DeviceError, ModelDoesNotFit
from common.files import sha256_of, writing_to

_SEAL = b"\nsha256:"
_SEAL_LENGTH = len(_SEAL) + 64
_MEMORY = SpikeMemory()


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


@contextmanager
def _scratch_folder() -> Iterator[Path]:
    """A temporary folder: akida reads and writes files only. StorageFull where there is no room."""
    with writing_to(Path(tempfile.gettempdir())):
        folder = tempfile.TemporaryDirectory()
    with folder as name:
        yield Path(name)


class Program:
    """A network as an Akida v1 program: image layers, a 1-bit spike layer and a head.

    Parameters
    ----------
    model : akida.Model
        What the converter returned, with at least a spike layer and a head.

    Attributes
    ----------
    model, body : akida.Model
        With and without the head; for this package only.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.body = akida.Model(layers=model.layers)
        self.body.pop_layer()
        free_with(self, [self.model, self.body])

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
        with _scratch_folder() as folder:
            path = folder / "program.fbz"
            with writing_to(path):
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
        with _scratch_folder() as folder, writing_to(folder):
            path = folder / "program.fbz"
            self.model.save(str(path))
            content = path.read_bytes()
        return content + _SEAL + sha256_of(content).encode()

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names from the input to the head."""
        return tuple(layer.name for layer in self.model.layers)

    @property
    def n_layers(self) -> int:
        """Number of layers, the head included."""
        return int(self.model.layer_count)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Height, width, channels."""
        return tuple(self.model.input_shape)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the head's output, (1, 1, classes)."""
        return tuple(self.model.output_shape)

    @property
    def n_spikes(self) -> int:
        """Number of inputs of the head."""
        return int(np.prod(self.body.output_shape))

    def predict_potentials(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Dequantized outputs of the head, i.e. logits, float32 (n, classes).

        ``images`` is uint8 (n, height, width, 3).
        """
        model = where_it_runs(self.model)
        parts = [model.predict(batch) for batch in batches(images)]
        return flat(parts, int(np.prod(self.output_shape)), np.float32)

    def spikes(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What the head sees of ``images`` (n, height, width, 3): uint8 (n, n_spikes).

        Those of several images are remembered (`common.akida_runtime.spike_memory`).
        """
        if len(images) < 2:
            return self._forward_spikes(images)
        return _MEMORY.spikes(self._body_key, images, self.n_spikes, self._forward_spikes)

    @cached_property
    def _body_key(self) -> bytes:
        return body_key(self.body.layers)

    def _forward_spikes(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        body = where_it_runs(self.body)
        return flat([body.forward(b) for b in batches(images)], self.n_spikes, np.uint8)

    def mean_spikes(self, images: NDArray[np.uint8]) -> dict[str, float]:
        """Mean number of non-zero outputs (events) per image of each layer before the head.

        All layers' outputs of all images are held: ``images`` should be a small sample, at least
        one image.
        """
        events: dict[str, float] = {}
        outputs = images
        for layer in self.body.layers:
            with temporary(_alone(layer)) as model:
                parts = [model.forward(batch) for batch in batches(outputs)]
            outputs = np.concatenate(parts).astype(np.uint8)
            events[layer.name] = np.count_nonzero(outputs) / len(images)
        return events

    def fit_report(self, device_name: str) -> FitReport:
        """How this program maps onto a virtual device (``AKD1000`` or ``AKD1500``).

        ``hw_only`` mapping, so one hardware sequence: proves fit, says nothing about speed.
        """
        with temporary(akida.Model(layers=self.model.layers)) as model:
            return fit_of(model, device_name)

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
        """Latency and power over ``images`` on the real device; None values without either."""
        description = available_device()
        if not description.real or not len(images):
            return Measurement(description)
        device = akida.devices()[0]
        powers, floor = {}, None
        try:
            with temporary(akida.Model(layers=self.model.layers)) as model:
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


def _alone(layer: Any) -> Any:
    """A model of one layer of a body, which takes what the layer before it gives."""
    if not layer.inbounds:  # the first one, which takes images
        return akida.Model(layers=[layer])
    before = akida.InputData(
        tuple(layer.input_dims), input_bits=layer.input_bits, name=layer.inbounds[0].name
    )
    return akida.Model(layers=[before, layer])
