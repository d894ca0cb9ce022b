"""Handling of `akida.Model` objects: their memory, and arrays in and out of them."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BATCH = 16
"""Images a call. Akida holds the interpreter's lock for a whole call: 256 at once, no faster per
image, would keep a service's other threads waiting for half a second."""


def free(model: Any) -> None:
    """Give a model's memory back.

    akida 2.19.3 keeps the layers of every model that goes out of use (0.8 MB for the default
    network, measured), because they refer to each other; popping them frees them.
    """
    while model.layer_count:
        model.pop_layer()


def _free_all(models: list[Any]) -> None:
    for model in models:
        free(model)


def free_with(owner: object, models: list[Any]) -> None:
    """Free what ``models`` holds then when ``owner`` goes out of use."""
    weakref.finalize(owner, _free_all, models).atexit = False


@contextmanager
def temporary(model: Any) -> Iterator[Any]:
    """A model that is freed at the end of the block."""
    try:
        yield model
    finally:
        free(model)


def batches(inputs: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Pieces small enough that a layer's activations of one piece take little memory."""
    return [inputs[i : i + _BATCH] for i in range(0, len(inputs), _BATCH)]


def flat(parts: list[Any], width: int, dtype: type[Any]) -> NDArray[Any]:
    """Outputs (n, 1, 1, width) of successive batches as one array (n, width)."""
    rows = [np.asarray(part, dtype).reshape(-1, width) for part in parts]
    return np.concatenate([np.zeros((0, width), dtype), *rows])
