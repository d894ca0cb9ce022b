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
from server.step_times import StepTimes


def combined_ranges(ranges: list[tuple[tuple[float, ...], int]]) -> tuple[float, ...]:
    """The sites' calibration ranges, averaged by their numbers of images."""
    values = np.array([r for r, _ in ranges], np.float64)
    averaged = np.average(values, axis=0, weights=[n for _, n in ranges])
    return tuple(float(v) for v in averaged)


def widest_ranges(config: QanaConfig) -> tuple[float, ...]:
    """Ranges that cut nothing off, for want of measured ones: every activation's bound."""
    return (*[BOUND] * (len(chain_names(config)) - 1), 0.0)


def quantize_after_training(
    floating: NamedWeights,
    ranges: tuple[float, ...],
    config: QanaConfig,
    times: StepTimes | None = None,
) -> NamedWeights:
    """Post-training quantized weights: fold, then bring activations to one range.

    ``times`` is told what either took.
    """
    times = times or StepTimes()
    with times.part("folding"):
        chain = fold(floating, config)
    with times.part("quantizing"):
        return quantizable_weights(chain, np.asarray(ranges, np.float64))


def build_bundle(plan: RunPlan, state: RunState, times: StepTimes) -> Bundle:
    """The model version of the round that ``state`` is in.

    ``state.quantized`` holds the weights to convert: quantized after training in a float round,
    trained quantized in a QAT round. A program that fits neither device is still a bundle; its
    card says which layer does not map. ``times`` is told what converting and mapping took.
    """
    with times.part("converting"):
        program = convert(state.quantized, plan.config, len(state.classes))
    with times.part("mapping"):
        fit = {device: program.fit_report(device).to_json() for device in DEVICES}
    return make_bundle(
        program.to_bytes(),
        state.quantized,
        state.floating,
        run=plan.run,
        version=state.round,
        parent=plan.version_before(state.round),
        phase=plan.phase(state.round),
        classes=state.classes,
        config=plan.config,
        crop=plan.crop,
        all_symmetries=plan.by_symmetries(state.round),
        seed=plan.seed,
        ranges=state.ranges,
        fit=fit,
        metrics=state.metrics,
    )
