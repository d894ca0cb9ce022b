"""From the quantized Keras model to an Akida version 1 program, and whether the two agree.

They agree in every spike and every prediction, because the model computes as the chip does
(`common.qana.chip_arithmetic`). cnn2snn is imported here only. Version 1 is asked for explicitly:
it is what AKD1000 and AKD1500 have, and the only version that learns on the chip, whereas cnn2snn
targets version 2 by default.
"""

import contextlib
import io
import logging
import warnings
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from common.akida_runtime import Program
from common.errors import ConversionRefused
from common.keras_setup import eagerly, keras
from common.qana.config import QanaConfig
from common.qana.networks import network
from common.qana.quantize import chain_names
from common.qana.weights import NamedWeights


def convert(weights: NamedWeights, config: QanaConfig, n_classes: int) -> Program:
    """The Akida program of a quantized network.

    Parameters
    ----------
    weights : named arrays
        Kernels and biases of the quantized model.

    Raises
    ------
    ConversionRefused
        Where cnn2snn fails, or returns fewer layers, another last layer or another output
        shape than asked for: it truncates what it cannot convert with no more than a warning.
    """
    quantized = network("qat", config, n_classes)
    quantized.set_weights(weights)
    return convert_model(quantized.model, chain_names(config), n_classes)


def convert_model(model: keras.Model, names: list[str], n_classes: int) -> Program:
    """`convert` of any quantized Keras model whose layers should become ``names``."""
    from cnn2snn import AkidaVersion, set_akida_version
    from cnn2snn import convert as cnn2snn_convert

    logging.getLogger("cnn2snn").setLevel(logging.ERROR)
    try:
        with (
            set_akida_version(AkidaVersion.v1),
            # Of thresholds above 2^19 that it cuts off there. They belong to channels that never
            # fire: no accumulator of a network that fits a chip gets that far.
            warnings.catch_warnings(action="ignore"),
            contextlib.redirect_stdout(io.StringIO()),
            eagerly(),
        ):
            converted = cnn2snn_convert(model)
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        raise ConversionRefused(
            f"cnn2snn refuses the network: {' '.join(str(error).split())}; use the layers that "
            "Akida version 1 has"
        ) from error
    found = [layer.name for layer in converted.layers if "quantizer" not in layer.name]
    if found != names:
        missing = next((n for n in names if n not in found), names[-1])
        raise ConversionRefused(
            f"the converted program has {len(found)} of {len(names)} layers, the first missing "
            f"is {missing!r}; cnn2snn cannot convert that layer for Akida version 1"
        )
    if tuple(converted.output_shape) != (1, 1, n_classes):
        raise ConversionRefused(
            f"the converted program's output is {tuple(converted.output_shape)} where "
            f"(1, 1, {n_classes}) was asked for; the conversion is not usable"
        )
    return Program(converted)


@dataclass(frozen=True)
class Agreement:
    """How many of ``images`` predictions and ``spikes`` spikes are equal on both sides."""

    images: int
    equal_predictions: int
    spikes: int
    equal_spikes: int

    def to_json(self) -> dict[str, int]:
        """This count as plain JSON values."""
        return asdict(self)


def keras_spikes_and_logits(
    weights: NamedWeights, config: QanaConfig, n_classes: int, images: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """What the quantized network computes: spikes uint8 (n, units), logits float32 (n, c).

    By the forward pass that it was trained with (`common.qana.chip_chain`); the conversion has
    no part in that, so comparing it with a program checks both.
    """
    quantized = network("qat", config, n_classes)
    quantized.set_weights(weights)
    return quantized.spikes_and_logits(images)


def agreement(
    keras_spikes: NDArray[np.uint8],
    keras_logits: NDArray[np.float32],
    program_spikes: NDArray[np.uint8],
    program_logits: NDArray[np.float32],
) -> Agreement:
    """Compare spikes (n, units) and predictions (argmax of logits (n, classes)) of two sides."""
    return Agreement(
        len(keras_logits),
        int((keras_logits.argmax(axis=1) == program_logits.argmax(axis=1)).sum()),
        int(keras_spikes.size),
        int((keras_spikes == program_spikes).sum()),
    )
