"""The smallest QANA network, random weights for any, and what is built from them once."""

import functools

import numpy as np
from numpy.typing import NDArray

from common.akida_runtime import Program
from common.qana.config import ELEMENTS, QanaConfig
from common.qana.convert import convert
from common.qana.fold import fold
from common.qana.networks import network
from common.qana.quantize import observe_ranges, quantizable_weights
from common.qana.weights import NamedWeights

TINY = QanaConfig(input_size=32, stem=8, widths=(8,), transform=8, spikes=16)
CLASSES = 3
BARE = TINY.model_copy(update={"elements": ()})
"""No attention, no residuals, no squeeze-and-excitation."""
LACKING = tuple(
    QanaConfig(
        input_size=32,
        stem=8,
        widths=(8, 16),
        depth=2,
        transform=8,
        spikes=8,
        elements=tuple(e for e in ELEMENTS if e != left_out),
    )
    for left_out in ELEMENTS
)
"""Each without one element; blocks with and without a change of width and stride."""


def random_images(n: int, seed: int, size: int = TINY.input_size) -> NDArray[np.uint8]:
    """Random images (n, size, size, 3) that are smooth here and noisy there."""
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 256, (n, 1, 1, 3))
    noise = rng.normal(size=(n, size, size, 3)) * rng.uniform(0, 90, (n, 1, 1, 1))
    return (base + noise).clip(0, 255).astype(np.uint8)


def random_weights(config: QanaConfig, n_classes: int, seed: int) -> NamedWeights:
    """Random kernels and random batch-norm parameters, as after any training."""
    rng = np.random.default_rng(seed)
    weights: NamedWeights = {}
    for name, value in network("float", config, n_classes).weights().items():
        kind = name.rsplit("/", 1)[1]
        if kind == "moving_variance":
            drawn = np.exp(rng.uniform(-2, 2, value.shape))
        elif kind == "gamma":
            drawn = rng.uniform(-1.5, 1.5, value.shape)
        elif kind in ("moving_mean", "beta", "bias"):
            drawn = rng.normal(size=value.shape)
        else:  # kernels: He's scale keeps signals between 0 and the bound
            fan_in = np.prod(value.shape[:2]) if "depthwise" in kind else np.prod(value.shape[:-1])
            drawn = rng.normal(size=value.shape) * np.sqrt(2 / fan_in)
        weights[name] = np.asarray(drawn, np.float32)
    return weights


def quantized_from(weights: NamedWeights, config: QanaConfig, n_classes: int) -> NamedWeights:
    """Post-training quantized weights, calibrated on random images."""
    chain = fold(weights, config)
    images = random_images(32, seed=9, size=config.input_size)
    return quantizable_weights(chain, observe_ranges(chain, config, images))


@functools.cache
def tiny_weights(seed: int = 0) -> tuple[NamedWeights, NamedWeights, Program]:
    """Float weights, quantized weights and the program of a random tiny network."""
    floating = random_weights(TINY, CLASSES, seed)
    quantized = quantized_from(floating, TINY, CLASSES)
    return floating, quantized, convert(quantized, TINY, CLASSES)
