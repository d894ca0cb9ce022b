"""From a folded chain to a quantized Keras model, and the ranges that this takes.

quantizeml is imported here and in `chip_arithmetic` only. The chain is first brought to one common
activation range (`common.qana.chain.normalized`), so that every bounded activation has the step
0.25 and the levels 0, 0.25 ... 3.75 of four bits. Everything that differs between two quantized
models is then in their kernels and biases: the quantized model is built once per shape and
reused, and federated averaging of kernels and biases averages the whole model.

Two units differ from the float chain's: pixels enter as k / 255 (quantizeml's Rescaling), so the
stem's kernel keeps the training graph's scale, and a spike is 0 or 1 with its threshold at 0.5.
"""

import contextlib
import io
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from common.keras_setup import keras, tf
from common.qana.chain import Chain, normalized
from common.qana.config import QanaConfig
from common.qana.network import block_plans
from common.qana.weights import NamedWeights, named_weights, set_weights

layers = keras.layers

ACTIVATION_RANGE = 3.75
"""15 steps of 0.25: what four unsigned bits hold with two fractional bits (quantizeml's
`FixedPoint.max_frac_bits`)."""

ACTIVATION_STEP = ACTIVATION_RANGE / 15
"""0.25: what lies between two of the levels, 0 to 15."""

SPIKE_RANGE = 1.5
"""Any range in (1, 2] makes quantizeml's 1-bit step 1.0 and so the spike's threshold 0.5."""

CLIPPED_ABOVE = 8.0
"""Where the quantized ReLUs clip: out of the way, as four bits end at 3.75 and one at 1. quantizeml
rounds this bound to an accumulator unit; at 3.75 it could cut off the highest level."""

CALIBRATION_PERCENTILE = 99.7
CALIBRATION_IMAGES = 256
"""At most so many of a site's training images are looked at for its ranges."""

SMALLEST_RANGE = 0.05
"""Below this a layer is silent; its range must still be one to divide by."""


def chain_names(config: QanaConfig) -> list[str]:
    """Names of the chain's layers in order; ranges and weights follow it."""
    parts = ("features", "gate") if "attention" in config.elements else ("features",)
    blocks = [f"{p.name}_{part}" for p in block_plans(config) for part in parts]
    excite = ["excite"] if "excitation" in config.elements else []
    return ["stem", *blocks, "transform", *excite, "spikes", "head"]


def _sequential(
    config: QanaConfig, n_classes: int, bound: float, spike_bound: float
) -> keras.Sequential:
    """The chain as a float Sequential in the patterns that Akida version 1 converts."""
    size = config.input_size
    model = keras.Sequential(name="qana_chain")
    model.add(keras.Input((size, size, 3), dtype="uint8", name="image"))
    model.add(layers.Rescaling(1.0 / 255.0, name="rescaling"))

    def conv(name: str, filters: int, kernel: int, stride: int = 1) -> None:
        model.add(layers.Conv2D(filters, kernel, stride, padding="same", name=name))

    def relu(name: str, upper: float) -> None:
        model.add(layers.ReLU(max_value=upper, name=f"{name}_relu"))

    conv("stem", config.stem, 3, 2)
    relu("stem", bound)
    for plan in block_plans(config):
        gated = "attention" in config.elements
        squeezed = plan.width // config.squeeze if gated else 0
        conv(f"{plan.name}_features", plan.width + squeezed, 3, plan.stride)
        relu(f"{plan.name}_features", bound)
        if gated:
            conv(f"{plan.name}_gate", plan.width, 1)
            relu(f"{plan.name}_gate", bound)
    conv("transform", config.transform, 1)
    model.add(layers.GlobalAveragePooling2D(keepdims=True, name="pool"))
    relu("transform", bound)
    if "excitation" in config.elements:
        conv("excite", config.transform + config.transform // config.squeeze, 1)
        relu("excite", bound)
    conv("spikes", config.spikes, 1)
    relu("spikes", spike_bound)
    model.add(layers.Flatten(name="flatten"))
    model.add(layers.Dense(n_classes, name="head"))
    return model


@lru_cache(maxsize=4)
def float_chain_model(config: QanaConfig, n_classes: int) -> keras.Sequential:
    """The folded chain as a float Keras model; one per shape, its weights are set before use."""
    from common.qana.network import BOUND

    return _sequential(config, n_classes, BOUND, 1.0)


@lru_cache(maxsize=4)
def quantized_model(config: QanaConfig, n_classes: int) -> keras.Model:
    """The quantized Keras model of a shape: 8-bit input weights, 4/4 bit, 1-bit spikes.

    One per process and shape: building takes seconds, assigning weights milliseconds.
    """
    from quantizeml.layers import QuantizationParams
    from quantizeml.models import quantize

    from common.qana.chip_arithmetic import compute_as_chip

    parameters = QuantizationParams(
        input_dtype="uint8",
        input_weight_bits=8,
        weight_bits=4,
        activation_bits=4,
        per_tensor_activations=True,
    )
    spikes = {
        "output_quantizer": {
            "bitwidth": 1,
            "signed": False,
            "axis": "per-tensor",
            "buffer_bitwidth": 32,
        },
        "buffer_bitwidth": 32,
    }
    model = _sequential(config, n_classes, CLIPPED_ABOVE, CLIPPED_ABOVE)
    anything = np.zeros((1, config.input_size, config.input_size, 3), np.uint8)
    with contextlib.redirect_stdout(io.StringIO()):
        quantized = quantize(
            model,
            q_config={"spikes_relu": spikes},
            qparams=parameters,
            samples=anything,
            num_samples=1,
            batch_size=1,
        )
    for layer in quantized.layers:
        quantizer = getattr(layer, "out_quantizer", None)
        if quantizer is not None:
            spiking = layer.name == "spikes_relu"
            quantizer.range_max.assign(SPIKE_RANGE if spiking else ACTIVATION_RANGE)
            quantizer.rescaling_rate.assign(1.0)
    compute_as_chip(quantized)
    return quantized


def trainable_names(config: QanaConfig) -> list[str]:
    """Names of the quantized model's kernels and biases in order."""
    return [f"{n}/{part}" for n in chain_names(config) for part in ("kernel", "bias")]


def quantized_weights(model: keras.Model) -> NamedWeights:
    """Kernels and biases of a quantized model (quantizer ranges are constants, left out)."""
    return {n: w for n, w in named_weights(model).items() if n.endswith(("/kernel", "/bias"))}


def quantizable_weights(chain: Chain, ranges: NDArray[np.float64]) -> NamedWeights:
    """Kernels and biases of the quantized model that stands for ``chain``.

    Parameters
    ----------
    ranges : float64 array, shape (n_layers,)
        Calibrated activation ranges in the chain's units (`observe_ranges`, aggregated).
    """
    weights = normalized(chain, ranges, ACTIVATION_RANGE).weights()
    weights["stem/kernel"] = weights["stem/kernel"] * np.float32(255.0)
    head = weights["head/kernel"]
    weights["head/kernel"] = head.reshape(head.shape[-2:])
    return weights


def set_chain_weights(model: keras.Sequential, chain: Chain) -> None:
    """Put a float chain into its Keras model (`float_chain_model`)."""
    weights = chain.weights()
    weights["stem/kernel"] = weights["stem/kernel"] * np.float32(255.0)
    head = weights["head/kernel"]
    weights["head/kernel"] = head.reshape(head.shape[-2:])
    set_weights(model, weights)


def observe_ranges(
    chain: Chain, config: QanaConfig, images: NDArray[np.uint8], batch: int = 128
) -> NDArray[np.float64]:
    """Upper end of every activation of a chain on a site's own images.

    The 99.7th percentile over all values, so that single outliers do not cost all others their
    resolution; never above the bound. This is all of a site's images that leaves the site.

    Returns
    -------
    float64 array, shape (n_layers,)
        In the chain's units; the head's entry is 0.
    """
    model, probe = _range_probe(config, chain.n_classes)
    set_chain_weights(model, chain)
    names = chain_names(config)
    maxima = [
        [float(np.percentile(a, CALIBRATION_PERCENTILE)) for a in probe(images[i : i + batch])]
        for i in range(0, len(images), batch)
    ]
    ranges = np.zeros(len(names))
    ranges[:-1] = np.maximum(np.mean(maxima, axis=0), SMALLEST_RANGE)
    return ranges


@lru_cache(maxsize=4)
def _range_probe(
    config: QanaConfig, n_classes: int
) -> "tuple[keras.Sequential, tf.types.experimental.GenericFunction]":
    """A float chain and what gives its activations; together, lest one outlive the other."""
    model = float_chain_model(config, n_classes)
    outputs = [model.get_layer(f"{n}_relu").output for n in chain_names(config)[:-1]]
    probe = keras.Model(model.input, outputs)
    return model, tf.function(lambda x: list(probe(x, training=False)), reduce_retracing=True)
