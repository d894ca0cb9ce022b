"""Where programs run: a real Akida device, else the software backend; and virtual devices."""

from dataclasses import dataclass
from typing import Any

import akida

from common.errors import ModelDoesNotFit, SettingsError

DEVICES = ("AKD1000", "AKD1500")


@dataclass(frozen=True)
class DeviceDescription:
    """Where programs run: ``real`` is False for the software backend."""

    name: str
    real: bool


def available_device() -> DeviceDescription:
    """The first Akida device of this machine, else the software backend."""
    found = akida.devices()
    if found:
        return DeviceDescription(str(found[0].desc), True)
    return DeviceDescription(f"software backend (akida {akida.__version__})", False)


def where_it_runs(model: Any) -> Any:
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


def virtual_device(name: str) -> Any:
    """An `akida.Device` that programs can be mapped onto; SettingsError for another name."""
    if name not in DEVICES:
        raise SettingsError(f"unknown device {name!r}; known are {', '.join(DEVICES)}")
    return akida.AKD1000() if name == "AKD1000" else akida.AKD1500()
