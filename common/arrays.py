"""Named arrays as bytes: npz without pickle, equal arrays give equal bytes."""

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def to_npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The arrays as an uncompressed .npz file."""
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **dict(arrays))
    return stream.getvalue()


def from_npz(content: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file; raises ValueError for anything else or a pickled object."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"not an npz file: {error}") from error
