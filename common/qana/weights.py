"""Weights as named arrays: the form in which they travel, are saved and are averaged."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # whoever has a model has TensorFlow; whoever has a file need not wait for it
    from common.keras_setup import keras, tf

Float = NDArray[np.float32]
NamedWeights = dict[str, Float]

LARGEST_STATISTIC = 1e4
"""A batch norm's mean or variance beyond this is a fault or an attack: networks trained on the
four sources of HAM10000 stay below 150."""

_STATISTICS = ("/moving_mean", "/moving_variance")


def _name(variable: "tf.Variable") -> str:
    return str(variable.name).removesuffix(":0")


def named_weights(model: "keras.Model") -> NamedWeights:
    """All weights of a model by name (``stem/kernel``, ...), in the model's order."""
    return {_name(v): v.numpy().astype(np.float32) for v in model.weights}


def set_weights(model: "keras.Model", weights: Mapping[str, Float]) -> None:
    """Assign named weights; names and shapes must be the model's own."""
    for variable in model.weights:
        variable.assign(weights[_name(variable)])


def is_statistic(name: str) -> bool:
    """Whether a name is a batch norm's moving statistic (not trained by gradients)."""
    return name.endswith(_STATISTICS)


def fault_of(name: str, array: Float) -> tuple[str, str] | None:
    """Why no network has such numbers, as a code and in words; None where one may have them."""
    if not np.isfinite(array).all():
        return "not-finite", "values that are not finite"
    if is_statistic(name) and np.abs(array).max(initial=0.0) > LARGEST_STATISTIC:
        return "too-large", f"values above {LARGEST_STATISTIC:g}"
    if name.endswith("/moving_variance") and array.min(initial=0.0) < 0:
        return "negative-variance", "negative values"
    return None


def trained_part(weights: Mapping[str, Float]) -> NamedWeights:
    """The same network up to the first output that was never trained; at least one is left.

    Such an output still has the zero kernel column of `grow_head`.
    """
    kernel, bias = weights["head/kernel"], weights["head/bias"]
    untrained = np.flatnonzero(np.all(kernel == 0, axis=tuple(range(kernel.ndim - 1))))
    n_classes = max(1, int(untrained[0])) if len(untrained) else len(bias)
    return {
        **weights,
        "head/kernel": kernel[..., :n_classes],
        "head/bias": bias[:n_classes],
    }


def grow_head(weights: Mapping[str, Float], n_classes: int) -> NamedWeights:
    """The same network with outputs for newly registered classes.

    A new class starts with a zero kernel column and the mean bias of the others, so that the
    old classes' order is unchanged until the class is trained.
    """
    grown = dict(weights)
    kernel, bias = grown["head/kernel"], grown["head/bias"]
    extra = n_classes - bias.shape[0]
    if extra > 0:
        pad = [(0, 0)] * (kernel.ndim - 1) + [(0, extra)]
        grown["head/kernel"] = np.pad(kernel, pad)
        grown["head/bias"] = np.concatenate([bias, np.full(extra, bias.mean(), np.float32)])
    return grown
