"""All weights of a message travel as one array; what a site packs may be anything."""

import io
import zipfile

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from hypothesis import given
from hypothesis import strategies as st

from common.errors import SiteRefused
from common.flower_records import pack_arrays, unpack_arrays

WEIGHTS = {"a/kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.float32([np.nan])}


def packed(content: bytes) -> ArrayRecord:
    return ArrayRecord({"packed": Array(np.frombuffer(content, np.uint8))})


def test_they_come_out_as_they_went_in_and_take_one_object() -> None:
    record = pack_arrays(WEIGHTS)
    assert len(record) == 1
    found = unpack_arrays(record)
    assert list(found) == list(WEIGHTS)
    for name, array in WEIGHTS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def bomb() -> bytes:
    """A compressed array that is a thousand times larger than it looks."""
    stream = io.BytesIO()
    np.savez_compressed(stream, a=np.zeros(10**6, np.float32))
    return stream.getvalue()


def understated() -> bytes:
    """A stored file whose directory says that it is larger than all of it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.npy", b"x" * 50)
    return stream.getvalue().replace((50).to_bytes(4, "little"), (10**6).to_bytes(4, "little"))


@pytest.mark.parametrize("content", [b"", b"x", bomb(), understated()])
def test_what_is_no_plain_npz_is_refused(content: bytes) -> None:
    with pytest.raises(SiteRefused) as refused:
        unpack_arrays(packed(content))
    assert refused.value.code == "malformed"


@pytest.mark.parametrize(
    "record",
    [
        ArrayRecord({"a": Array(np.zeros(3, np.float32))}),
        ArrayRecord({"packed": Array(np.zeros(3, np.float32))}),
        ArrayRecord({"packed": Array(np.zeros((2, 2), np.uint8))}),
        ArrayRecord({}),
    ],
)
def test_other_forms_are_refused(record: ArrayRecord) -> None:
    with pytest.raises(SiteRefused):
        unpack_arrays(record)


@given(position=st.integers(0, 10**6), value=st.integers(0, 255))
def test_a_damaged_byte_is_refused_or_gives_arrays(position: int, value: int) -> None:
    content = bytearray(pack_arrays(WEIGHTS)["packed"].numpy().tobytes())
    content[position % len(content)] = value
    try:
        found = unpack_arrays(packed(bytes(content)))
    except SiteRefused as error:
        assert error.code == "malformed"
    else:
        assert all(isinstance(array, np.ndarray) for array in found.values())
