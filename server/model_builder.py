"""From global weights to a bundle: fold, quantize, convert, check the fit."""

import numpy as np

from common.akida_runtime import DEVICES
from common.bundle import Bundle, make_bundle
from common.qana.config import QanaConfig
from common.qana.convert import convert
from common.qana.fold import fold
from common.qana.network import BOUND
from common.qana.quantize import chain_names, quantizable_weights
from common.qana.weights import NamedWeights
from server.checkpoint import RunState
from server.plan import RunPlan


def combined_ranges(ranges: list[tuple[tuple[float, ...], int]]) -> tuple[float, ...]:
    """The sites' calibration ranges, averaged by their numbers of images."""
    values = np.array([r for r, _ in ranges], np.float64)
    averaged = np.average(values, axis=0, weights=[n for _, n in ranges])
    return tuple(float(v) for v in averaged)


def widest_ranges(config: QanaConfig) -> tuple[float, ...]:
    """Ranges that cut nothing off, for want of measured ones: every activation's bound."""
    return (*[BOUND] * (len(chain_names(config)) - 1), 0.0)


def quantize_after_training(
    floating: NamedWeights, ranges: tuple[float, ...], config: QanaConfig
) -> NamedWeights:
    """Post-training quantized weights: fold, then bring activations to one range."""
    return quantizable_weights(fold(floating, config), np.asarray(ranges, np.float64))


def build_bundle(plan: RunPlan, state: RunState) -> Bundle:
    """The model version of the round that ``state`` is in.

    ``state.quantized`` holds the weights to convert: quantized after training in a float round,
    trained quantized in a QAT round. A program that fits neither device is still a bundle; its
    card says which layer does not map.
    """
    program = convert(state.quantized, plan.config, len(state.classes))
    return make_bundle(
        program.to_bytes(),
        state.quantized,
        state.floating,
        run=plan.run,
        version=state.round,
        parent=state.round - 1,
        phase=plan.phase(state.round),
        classes=state.classes,
        config=plan.config,
        seed=plan.seed,
        ranges=state.ranges,
        fit={device: program.fit_report(device).to_json() for device in DEVICES},
        metrics=state.metrics,
    )
