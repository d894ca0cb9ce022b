"""How a program maps onto a virtual device: what it takes, or which layer does not fit."""

from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

import akida
import numpy as np

from common.akida_runtime.devices import virtual_device
from common.akida_runtime.spike_memory import settings_of


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


_SMALLEST_STEP, _LARGEST_STEP = 1 / 16, 65535.0
_LARGEST_THRESHOLD = 2**19
"""What every layer's registers hold, 20 bits with a sign; akida refuses to map what is beyond."""

_REPORTS_KEPT = 64
_reports: dict[tuple[Any, ...], FitReport] = {}


def fit_of(model: Any, device_name: str) -> FitReport:
    """How ``model`` maps onto a virtual device.

    Mapping takes a quarter of a second. Where every value is one that all layers can hold, it
    depends on the layers' shapes alone (akida 2.19.3: the same report for random, sparse and
    extreme values), so it is done once per process and shape; otherwise each time.
    """
    if not _within_registers(model):
        return _mapped(model, device_name)
    key = (device_name, *_shape(model))
    found = _reports.get(key)
    if found is None:
        found = _mapped(model, device_name)
        if len(_reports) >= _REPORTS_KEPT:
            _reports.clear()
        _reports[key] = found
    return deepcopy(found)


def _within_registers(model: Any) -> bool:
    """Whether no layer has a value that a device might refuse, or no weight but zeros."""
    for layer in model.layers:
        names = layer.get_variable_names()
        if "threshold" in names:
            thresholds = layer.get_variable("threshold")
            if not -_LARGEST_THRESHOLD <= thresholds.min() <= thresholds.max() < _LARGEST_THRESHOLD:
                return False
        if "act_step" in names:
            steps = layer.get_variable("act_step")
            if not _SMALLEST_STEP <= steps.min() <= steps.max() <= _LARGEST_STEP:
                return False
        if "weights" in names and not layer.get_variable("weights").any():
            return False
    return True


def _shape(model: Any) -> tuple[Any, ...]:
    """Everything of a model but its values."""
    layers = tuple(
        (
            layer.name,
            layer.parameters.layer_type.name,
            tuple(settings_of(layer.parameters)),
            tuple(layer.input_dims),
            tuple(layer.output_dims),
            tuple((name, layer.get_variable(name).shape) for name in layer.get_variable_names()),
        )
        for layer in model.layers
    )
    return (layers, tuple(settings_of(model.learning)))


def _mapped(model: Any, device_name: str) -> FitReport:
    """Map ``model`` onto a virtual device and report how."""
    reason = ""
    try:
        model.map(virtual_device(device_name), hw_only=True)
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
