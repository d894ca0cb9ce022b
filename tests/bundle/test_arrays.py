import contextlib
import io
import pickle
import zipfile
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.arrays import from_npz, to_npz

ARRAYS: dict[str, NDArray[Any]] = {
    "stem/kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "labels": np.array([3, 1], np.int64),
    "none": np.zeros((0, 4), np.uint8),
    "scalar": np.float64(0.5) * np.ones(()),
    "ids": np.array(["a", "länger"]),
}


def test_arrays_come_back_and_nothing_else() -> None:
    found = from_npz(to_npz(ARRAYS))
    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_they_are_as_numpy_loads_them() -> None:
    arrays = {**ARRAYS, "turned": np.asfortranarray(np.arange(6.0).reshape(2, 3))}
    content = to_npz(arrays)
    found = from_npz(content)
    with np.load(io.BytesIO(content)) as expected:
        for name in expected.files:
            assert found[name].dtype == expected[name].dtype
            assert found[name].flags.f_contiguous == expected[name].flags.f_contiguous
            assert found[name].flags.writeable
            np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.parametrize("dtype", ["|V0", "<U0"])
def test_any_number_of_nothing_is_refused(dtype: str) -> None:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': (1000000000000,)}}\n"
    member = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.npy", member)
    with pytest.raises(ValueError, match="an array of"):
        from_npz(stream.getvalue())


def test_objects_are_refused_when_written_and_when_read() -> None:
    with pytest.raises(ValueError, match="bad"):
        to_npz({"bad": np.array([{}], dtype=object)})
    stream = io.BytesIO()
    np.savez(stream, bad=np.array([print], dtype=object))
    with pytest.raises(ValueError):
        from_npz(stream.getvalue())


@pytest.mark.parametrize("content", [b"", b"PK", b"text", pickle.dumps([1]), b"\x93NUMPY\x01\x00"])
def test_what_is_no_archive_is_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError):
        from_npz(content)


def test_a_single_array_is_no_archive() -> None:
    stream = io.BytesIO()
    np.save(stream, np.ones(3))
    with pytest.raises(ValueError):
        from_npz(stream.getvalue())


@pytest.mark.parametrize("member", [b"\x93NUMPY\x01\x00\x10\x00{'descr': <f4}  ", b"text", b""])
def test_members_that_are_no_arrays_are_a_value_error(member: bytes) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.npy", member)
    with pytest.raises(ValueError):
        from_npz(stream.getvalue())


@settings(max_examples=300)
@given(share=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), cut=st.booleans())
def test_damaged_archives_are_a_value_error_or_read(share: float, flip: int, cut: bool) -> None:
    content = bytearray(to_npz(ARRAYS))
    position = int(share * len(content))
    content[position] ^= flip
    with contextlib.suppress(ValueError):
        from_npz(bytes(content[:position] if cut else content))
