"""Tensors from a PyTorch checkpoint, without PyTorch and without running what a pickle asks for.

A checkpoint of the older kind is a row of pickles (a magic number, a version, sizes of types, the
tensors' descriptions, the storages' names) with the storages' numbers behind them. The
descriptions are read by an unpickler that knows ordered dicts, tensors and storages and refuses
every other name, so no code of a file ever runs.
"""

import io
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import DataUnreadable

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001


@dataclass(frozen=True)
class _Storage:
    """A row of numbers that tensors are views of."""

    key: str
    dtype: np.dtype[Any]
    length: int


@dataclass(frozen=True)
class _Tensor:
    """What a checkpoint says of a tensor; offset and strides in numbers, not bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, numbers: NDArray[Any]) -> NDArray[Any]:
        """The tensor as an array of its own; ValueError where it reaches beyond its storage."""
        size = numbers.itemsize
        view: NDArray[Any] = np.ndarray(
            self.shape,
            numbers.dtype,
            numbers,
            self.offset * size,
            [stride * size for stride in self.strides],
        )
        return np.ascontiguousarray(view) if self.shape else view.copy()


def _rebuild(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object
) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    return _Tensor(storage, offset, shape, strides)


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    ("torch", "FloatStorage"): np.dtype("<f4"),
    ("torch", "LongStorage"): np.dtype("<i8"),
}


class _TensorUnpickler(pickle.Unpickler):
    """Makes numbers, text, containers and what is in `_KNOWN`; nothing else has a name here."""

    def find_class(self, module: str, name: str) -> Any:
        """What a name of a pickle stands for."""
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in it") from None

    def persistent_load(self, pid: Any) -> _Storage:
        """The storage of a tensor."""
        kind, dtype, key, _, length, view = pid
        if kind != "storage" or not isinstance(dtype, np.dtype) or view is not None:
            raise pickle.UnpicklingError("a storage of an unknown kind")
        return _Storage(str(key), dtype, int(length))


def read_checkpoint(content: bytes, name: str) -> dict[str, NDArray[Any]]:
    """The tensors of a checkpoint's state dict.

    Strides are honoured: convolutions that came from another layout are stored transposed.

    Parameters
    ----------
    content : bytes
        Of a ``.pth`` file as PyTorch wrote it up to version 1.5.
    name : str
        What messages call it.

    Returns
    -------
    dict of str to array
        float32 or int64, in C order.

    Raises
    ------
    DataUnreadable
        Not such a file, cut off, or one that names anything but tensors.
    """
    stream = io.BytesIO(content)
    try:
        magic, version, _, state, keys = (_TensorUnpickler(stream).load() for _ in range(5))
        if (magic, version) != (_MAGIC, _VERSION):
            raise ValueError("it does not begin as one")
        tensors = {key: value for key, value in state.items() if isinstance(value, _Tensor)}
        storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
        numbers = {key: _read_storage(stream, storages[key]) for key in keys}
        return {key: tensor.of(numbers[tensor.storage.key]) for key, tensor in tensors.items()}
    except Exception as error:  # damaged pickles raise about anything
        why = " ".join(str(error).split()) or type(error).__name__
        raise DataUnreadable(
            f"{name} is not a checkpoint of tensors ({why}); get the file again"
        ) from error


def _read_storage(stream: io.BytesIO, storage: _Storage) -> NDArray[Any]:
    length = int.from_bytes(stream.read(8), "little")
    content = stream.read(length * storage.dtype.itemsize)
    if length != storage.length or len(content) != length * storage.dtype.itemsize:
        raise ValueError("it is cut off")
    return np.frombuffer(content, storage.dtype)
