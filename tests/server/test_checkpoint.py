"""The checkpoint: what is read is what was saved, or it is refused."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import StateDamaged, StorageFull
from server.checkpoint import STEPS, CheckpointFile, RunState


def example(round_number: int = 3, size: int = 4) -> RunState:
    rng = np.random.default_rng(round_number)
    return RunState(
        round=round_number,
        step="bundle",
        classes=("nv", "mel", "new_one"),
        floating={"a/kernel": rng.normal(size=(size, 2)).astype(np.float32)},
        quantized={"a/kernel": rng.normal(size=size).astype(np.float32)},
        strategy={"m_t:a/kernel": np.zeros((size, 2), np.float32)},
        ranges=(0.1, 5.999999999, 0.0),
        sites=("site-1", "site-2"),
        metrics={"validation": {"n": 3, "value": None}},
        seconds={"train": 0.25},
        started_at="2024-05-01T12:00:00+00:00",
        aggregated=2,
        counted={"site-1": 3, "site-2": 1},
        mean_network={"a/kernel": rng.normal(size=size).astype(np.float32)},
        mean_rounds=2,
        class_counts={"site-1": [3, 0, 1]},
    )


@contextmanager
def full_disk(free: int) -> Iterator[None]:
    """No file may become larger than ``free`` bytes: writing fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    file, state = CheckpointFile(tmp_path / "checkpoint"), example()
    assert file.load() is None
    file.save(state)
    loaded = file.load()
    assert loaded is not None
    for group in ("floating", "quantized", "strategy", "mean_network"):
        saved, found = getattr(state, group), getattr(loaded, group)
        assert list(saved) == list(found)
        assert all(np.array_equal(saved[n], found[n]) for n in saved)
        assert all(found[n].dtype == np.float32 for n in found)
    for name in ("round", "step", "classes", "ranges", "sites", "metrics", "seconds",
                 "started_at", "aggregated", "counted", "mean_rounds", "class_counts"):  # fmt: skip
        assert getattr(loaded, name) == getattr(state, name)


@given(position=st.integers(0, 10**9), change=st.integers(1, 255))
def test_one_changed_byte_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, position: int, change: int
) -> None:
    path = tmp_path_factory.mktemp("state") / "checkpoint"
    CheckpointFile(path).save(example())
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= change
    path.write_bytes(content)
    with pytest.raises(StateDamaged, match="checksum") as caught:
        CheckpointFile(path).load()
    assert caught.value.exit_status == 41


@pytest.mark.parametrize("kept", [0, 10, 64, 200])
def test_a_cut_off_file_is_noticed(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "checkpoint"
    CheckpointFile(path).save(example())
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(StateDamaged):
        CheckpointFile(path).load()


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    file = CheckpointFile(tmp_path / "checkpoint")
    file.save(example(3))
    with full_disk(20_000), pytest.raises(StorageFull, match="nothing saved before is lost"):
        file.save(example(4, size=10_000))
    loaded = file.load()
    assert loaded is not None and loaded.round == 3
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_the_steps_of_a_round_follow_one_another() -> None:
    state = example(1)
    state.step = STEPS[0]
    seen = []
    for _ in range(6):
        seen.append((state.round, state.step))
        state.advance()
    steps = ("train", "evaluate", "bundle", "deploy", "share")
    assert seen == [*((1, step) for step in steps), (2, "train")]
