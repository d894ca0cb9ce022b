"""Spikes of images that ran before, for all programs of this process.

A site asks for the spikes of the same images again and again: of its held-back cases by the new
program, by the one in service, by both heads; of its exemplars. They depend on the body of the
program and the image alone, so each image runs once through each body.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

_KEPT = 1 << 15
"""Images remembered, about 0.5 KiB each with 256 spikes: the least recently used ones go."""

_Key = tuple[bytes, bytes]


class SpikeMemory:
    """Rows of spikes by body and image; safe between threads.

    Parameters
    ----------
    kept : int
        Rows at most.
    """

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        self._rows: OrderedDict[_Key, bytes] = OrderedDict()
        self._lock = Lock()

    def spikes(
        self,
        body: bytes,
        images: NDArray[np.uint8],
        n_spikes: int,
        run: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
    ) -> NDArray[np.uint8]:
        """Spikes uint8 (n, n_spikes) of images (n, height, width, 3).

        ``run`` computes them for those that are not known yet; ``body`` is its `body_key`.
        """
        keys = [(body, hashlib.sha256(image.tobytes()).digest()) for image in images]
        with self._lock:
            known = {key: self._rows[key] for key in keys if key in self._rows}
        fresh = {key: index for index, key in enumerate(keys) if key not in known}
        if fresh:
            rows = run(images[list(fresh.values())])
            known |= {key: row.tobytes() for key, row in zip(fresh, rows, strict=True)}
        with self._lock:
            for key in known:
                self._rows[key] = known[key]
                self._rows.move_to_end(key)
            while len(self._rows) > self._kept:
                self._rows.popitem(last=False)
        joined = b"".join(known[key] for key in keys)
        return np.frombuffer(joined, np.uint8).reshape(len(keys), n_spikes).copy()


def body_key(layers: list[Any]) -> bytes:
    """SHA-256 of everything that a body's layers compute with; equal ones give equal spikes."""
    digest = hashlib.sha256()
    for layer in layers:
        digest.update(repr([layer.name, *settings_of(layer.parameters), layer.input_dims]).encode())
        for name in layer.get_variable_names():
            values = layer.get_variable(name)
            digest.update(repr([name, values.shape, values.dtype.str]).encode())
            digest.update(values.tobytes())
    return digest.digest()


def settings_of(parameters: Any) -> list[tuple[str, Any]]:
    """Names and values of a layer's or an optimizer's settings; none of None."""
    if parameters is None:
        return []
    names = [name for name in dir(parameters) if not name.startswith("_")]
    return [(name, getattr(parameters, name)) for name in names]
