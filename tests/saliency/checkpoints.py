"""Writes checkpoints as PyTorch did up to version 1.5, without PyTorch."""

import io
import pickle
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAGIC = 0x1950A86A20F9469CFC6C


def checkpoint(
    arrays: Mapping[str, NDArray[Any]], extra: Any = None, reach: int = 0, magic: int = MAGIC
) -> bytes:
    """A checkpoint of float32 arrays, each stored in memory order with its strides.

    ``extra`` is put beside the tensors; strides are ``reach`` longer than is true.
    """
    stream = io.BytesIO()
    with _torch() as torch:
        state: OrderedDict[str, Any] = OrderedDict()
        storages: list[tuple[str, NDArray[Any]]] = []
        for name, array in arrays.items():
            flat = np.lib.stride_tricks.as_strided(array, (array.size,), (array.itemsize,))
            storages.append((str(len(storages)), flat))
            strides = tuple(s // array.itemsize + reach for s in array.strides)
            storage = torch.Stored(storages[-1][0], array.size)
            state[name] = torch.Tensor((storage, 0, array.shape, strides, False, OrderedDict()))
        if extra is not None:
            state["extra"] = extra
        for value in (magic, 1001, {"little_endian": True}):
            stream.write(pickle.dumps(value, 2))
        _Pickler(stream, torch).dump(state)
        stream.write(pickle.dumps([key for key, _ in storages], 2))
    for _, flat in storages:
        stream.write(len(flat).to_bytes(8, "little") + flat.astype("<f4").tobytes())
    return stream.getvalue()


class _Pickler(pickle.Pickler):
    def __init__(self, stream: io.BytesIO, torch: Any) -> None:
        super().__init__(stream, 2)
        self._torch = torch

    def persistent_id(self, found: Any) -> Any:
        if isinstance(found, self._torch.Stored):
            return ("storage", self._torch.FloatStorage, found.key, "cpu", found.length, None)
        return None


@contextmanager
def _torch() -> Iterator[Any]:
    """Modules of PyTorch's names, so that a pickle can name what is in them."""
    torch, utils = ModuleType("torch"), ModuleType("torch._utils")

    def _rebuild_tensor_v2(*parts: Any) -> None:
        raise NotImplementedError

    class Stored:
        def __init__(self, key: str, length: int) -> None:
            self.key, self.length = key, length

    class Tensor:
        def __init__(self, parts: tuple[Any, ...]) -> None:
            self.parts = parts

        def __reduce__(self) -> Any:
            return _rebuild_tensor_v2, self.parts

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = (
        "torch._utils",
        ("_rebuild_tensor_v2"),
    )
    storage = type("FloatStorage", (), {"__module__": "torch"})
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2  # type: ignore[attr-defined]
    torch.FloatStorage = storage  # type: ignore[attr-defined]
    torch.Stored, torch.Tensor = Stored, Tensor  # type: ignore[attr-defined]
    before = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules |= {"torch": torch, "torch._utils": utils}
    try:
        yield torch
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
