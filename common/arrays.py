"""Named arrays as bytes: npz without pickle, equal arrays give equal bytes."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def to_npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The arrays as an uncompressed .npz file; raises ValueError for an array of objects."""
    stream = io.BytesIO()
    # Not by savez's own allow_pickle: numpy before 2.2 stores that as one more array.
    objects = [name for name, array in arrays.items() if array.dtype.hasobject]
    if objects:
        raise ValueError(f"{objects[0]} holds objects, which only pickle can store")
    np.savez(stream, **dict(arrays))
    return stream.getvalue()


def from_npz(content: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file; raises ValueError for anything else or a pickled object."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except Exception as error:  # zipfile and numpy have a dozen kinds for damaged content
        raise ValueError(f"not an npz file: {error}") from error
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise ValueError("not an npz file: it holds something else than arrays")
    return arrays
