"""Akida programs: run, inspect, map and go on learning. The only package that imports ``akida``.

Figures in it were measured with akida 2.19.3 on its software backend.
"""

from common.akida_runtime.devices import DEVICES, DeviceDescription, available_device
from common.akida_runtime.fit import FitReport
from common.akida_runtime.learning import LearningProgram
from common.akida_runtime.program import Measurement, Program

__all__ = [
    "DEVICES",
    "DeviceDescription",
    "FitReport",
    "LearningProgram",
    "Measurement",
    "Program",
    "available_device",
]
