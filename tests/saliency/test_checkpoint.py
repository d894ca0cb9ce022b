import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from common.errors import DataUnreadable
from common.saliency.checkpoint import read_checkpoint
from tests.saliency.checkpoints import checkpoint

_SOME = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(4, np.float32)}


@given(
    arrays(np.float32, array_shapes(min_dims=0, max_dims=4, max_side=4)),
    st.randoms(use_true_random=False),
)
def test_tensors_come_back_whatever_their_strides(array: Any, random: Any) -> None:
    axes = list(range(array.ndim))
    random.shuffle(axes)
    stored = array.transpose(axes)
    found = read_checkpoint(checkpoint({"x": stored, "y": array}), "it")
    np.testing.assert_array_equal(found["x"], stored)
    np.testing.assert_array_equal(found["y"], array)
    assert found["x"].flags.c_contiguous and found["x"].dtype == np.float32


class _Harmful:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def test_no_code_of_a_file_runs(tmp_path: Path) -> None:
    content = checkpoint(_SOME, extra=_Harmful(tmp_path / "ran"))
    with pytest.raises(DataUnreadable, match=r"x\.pth.*mkdir has no place") as caught:
        read_checkpoint(content, "x.pth")
    assert not (tmp_path / "ran").exists()
    assert "\n" not in str(caught.value)


def test_a_tensor_cannot_reach_beyond_its_storage() -> None:
    with pytest.raises(DataUnreadable):
        read_checkpoint(checkpoint(_SOME, reach=1), "it")
    with pytest.raises(DataUnreadable):
        read_checkpoint(checkpoint(_SOME, reach=-4), "it")


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "magic"])
def test_damage_is_one_line(damage: str) -> None:
    whole = checkpoint(_SOME)
    content = {
        "cut": whole[:-3],
        "empty": b"",
        "text": b"<html>not found</html>",
        "magic": checkpoint(_SOME, magic=7),
    }[damage]
    with pytest.raises(DataUnreadable, match="the file is not a checkpoint") as caught:
        read_checkpoint(content, "the file")
    assert "\n" not in str(caught.value)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_changes_numbers_only(place: int, change: int) -> None:
    whole = bytearray(checkpoint(_SOME))
    whole[place % len(whole)] ^= change
    try:
        found = read_checkpoint(bytes(whole), "it")
    except DataUnreadable:
        return
    assert all(isinstance(array, np.ndarray) for array in found.values())
