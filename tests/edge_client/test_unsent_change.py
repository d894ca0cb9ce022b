"""What compression leaves out goes with a later round: once, and not where it must not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.arrays import from_npz
from common.compression import Compression, compress, decompress
from common.messages import Answer, Instruction, TrainAsk
from common.qana.config import QanaConfig
from common.qana.weights import NamedWeights, is_statistic
from common.update_reach import UNSENT_REACH, farthest
from edge_client.outgoing import allowed, contents
from edge_client.policy import Policy
from edge_client.site import SiteFolder
from edge_client.unsent_change import FOLDER
from server.validation import check_update

EXAMPLES = 40
REPLY = json.dumps({"examples": EXAMPLES, "loss": 0.5, "seconds": 1.0})
ASK = TrainAsk(
    run="r", round=1, phase="float", classes=("mel", "nv", "bcc"), config=QanaConfig(), epochs=1,
    batch=4, learning_rate=1e-2, prior_strength=1.0, proximal=0.0, balance="prior", seed=0,
    compression="quantization",
)  # fmt: skip
SHAPES = {"stem/kernel": (3, 3, 8), "bn/moving_variance": (8,), "head/bias": (3,)}
METHODS: tuple[Compression, ...] = ("quantization", "top-k")


def drawn(seed: int, size: float) -> NamedWeights:
    rng = np.random.default_rng(seed)
    return {n: (size * rng.random(s) - size / 3).astype(np.float32) for n, s in SHAPES.items()}


RECEIVED = {name: array + np.float32(1) for name, array in drawn(0, 1.0).items()}


def trained(seed: int, size: float = 0.02) -> NamedWeights:
    return {name: RECEIVED[name] + array for name, array in drawn(seed, size).items()}


def policy(**privacy: float) -> Policy:
    return Policy.model_validate({"privacy": privacy})


def send(
    home: Path, weights: NamedWeights, limits: Policy | None = None, **ask: Any
) -> dict[str, NDArray[Any]]:
    """What leaves the site of a round's training."""
    instruction = Instruction("train", ASK.model_copy(update=ask), arrays=RECEIVED)
    answer = Answer(REPLY, arrays=weights)
    found = allowed(instruction, answer, limits or Policy(), home)
    assert isinstance(instruction.ask, TrainAsk) and found.reply == REPLY
    check_update(found, RECEIVED, instruction.ask, EXAMPLES)  # the coordinator takes it
    return found.arrays


def change(arrays: dict[str, NDArray[Any]]) -> NamedWeights:
    reached = decompress(arrays, RECEIVED)
    return {n: reached[n].astype(np.float64) - RECEIVED[n] for n in SHAPES if not is_statistic(n)}


def equal(first: dict[str, NDArray[Any]], second: dict[str, NDArray[Any]]) -> bool:
    return all(np.array_equal(first[n], second[n]) for n in first.keys() | second.keys())


def kept(home: Path) -> list[str]:
    return sorted(path.name for path in (SiteFolder(home).state / FOLDER).glob("*"))


def left_out(home: Path, round_number: int) -> NamedWeights:
    """What is kept of a round."""
    stored = (SiteFolder(home).state / FOLDER / str(round_number)).read_bytes()
    found = from_npz(stored[64:])
    return {n.removeprefix("left:"): array for n, array in found.items() if n != "about"}


def without_memory(weights: NamedWeights, method: Compression) -> dict[str, NDArray[Any]]:
    return compress(weights, RECEIVED, method)


@given(st.lists(st.integers(0, 999), min_size=2, max_size=6), st.sampled_from(METHODS))
@settings(deadline=None, max_examples=15)
def test_all_that_was_sent_is_all_changes_less_what_is_left_out_now(
    tmp_path_factory: pytest.TempPathFactory, seeds: list[int], method: Compression
) -> None:
    home = tmp_path_factory.mktemp("site")
    sent = {n: np.zeros(SHAPES[n]) for n in SHAPES if not is_statistic(n)}
    true = {n: np.zeros(SHAPES[n]) for n in sent}
    for number, seed in enumerate(seeds, 1):
        weights = trained(seed)
        found = change(send(home, weights, round=number, counted=number - 1, compression=method))
        for name in sent:
            sent[name] += found[name]
            true[name] += weights[name].astype(np.float64) - RECEIVED[name]
    for name, now in left_out(home, len(seeds)).items():
        assert np.abs(now).max() > 0
        np.testing.assert_allclose(sent[name], true[name] - now, atol=1e-6)


def test_the_same_round_asked_again_sends_the_same(tmp_path: Path) -> None:
    send(tmp_path, trained(1), round=1)
    first = send(tmp_path, trained(2), round=2, counted=1)
    assert not equal(first, without_memory(trained(2), "quantization"))
    assert equal(first, send(tmp_path, trained(2), round=2, counted=1))
    third = send(tmp_path, trained(3), round=3, counted=2)
    assert equal(third, send(tmp_path, trained(3), round=3, counted=2))
    assert kept(tmp_path) == ["2", "3"]


def test_a_round_that_was_not_counted_is_as_if_it_had_not_been(tmp_path: Path) -> None:
    for home in (tmp_path / "lost", tmp_path / "none"):
        send(home, trained(1), round=1)
    send(tmp_path / "lost", trained(2), round=2, counted=1)  # and its reply comes too late
    third = [send(tmp_path / n, trained(3), round=3, counted=1) for n in ("lost", "none")]
    assert equal(*third)
    assert kept(tmp_path / "lost") == kept(tmp_path / "none") == ["1", "3"]
    counted = send(tmp_path / "lost", trained(4), round=4, counted=3)
    assert equal(counted, send(tmp_path / "none", trained(4), round=4, counted=3))


def test_after_rounds_that_were_discarded_nothing_is_added(tmp_path: Path) -> None:
    send(tmp_path, trained(1), round=1)
    found = send(tmp_path, trained(2), round=2, counted=0)
    assert equal(found, without_memory(trained(2), "quantization"))
    assert kept(tmp_path) == ["2"]


@pytest.mark.parametrize(
    "other",
    [
        {"run": "another"},
        {"phase": "qat"},
        {"classes": ("mel", "nv", "bcc", "akiec")},
        {"config": QanaConfig(stem=16)},
        {"compression": "top-k"},
        {"counted": 3},
    ],
)
def test_what_belongs_to_something_else_is_not_added(other: dict[str, Any], tmp_path: Path) -> None:
    send(tmp_path, trained(1), round=1)
    ask = {"round": 4, "counted": 1, **other}
    found = send(tmp_path, trained(2), **ask)
    assert equal(found, without_memory(trained(2), ask.get("compression", "quantization")))


def test_another_coordinators_run_of_the_same_name_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(tmp_path, trained(1), round=1)
    monkeypatch.setattr("edge_client.unsent_change.pinned_seal", lambda home: "another's key")
    found = send(tmp_path, trained(2), round=2, counted=1)
    assert equal(found, without_memory(trained(2), "quantization"))


def test_arrays_of_other_shapes_are_not_added(tmp_path: Path) -> None:
    send(tmp_path, trained(1), round=1)
    grown = {**RECEIVED, "head/bias": np.ones(4, np.float32)}
    instruction = Instruction("train", ASK.model_copy(update={"round": 2, "counted": 1}), grown)
    found = allowed(instruction, Answer(REPLY, arrays=grown), Policy(), tmp_path).arrays
    assert equal(decompress(found, grown), grown)


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "folder"])
def test_a_damaged_file_costs_nothing_but_what_it_held(damage: str, tmp_path: Path) -> None:
    send(tmp_path, trained(1), round=1)
    file = SiteFolder(tmp_path).state / FOLDER / "1"
    content = file.read_bytes()
    if damage == "folder":
        file.unlink()
        file.mkdir()
    else:
        changed = content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
        file.write_bytes({"cut": content[:100], "changed": changed, "empty": b""}[damage])
    found = send(tmp_path, trained(2), round=2, counted=1)
    assert equal(found, without_memory(trained(2), "quantization"))


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    folder = SiteFolder(tmp_path).state / FOLDER
    folder.mkdir(parents=True)
    (folder / ".1.4711.partial").write_bytes(b"half")
    (folder / "7").write_bytes(b"of long ago")
    send(tmp_path, trained(1), round=1)
    assert kept(tmp_path) == ["1"]
    assert (folder / "1").stat().st_mode & 0o077 == 0


def test_where_nothing_can_be_kept_the_update_goes_all_the_same(tmp_path: Path) -> None:
    state = SiteFolder(tmp_path).state
    state.mkdir(parents=True)
    (state / FOLDER).write_text("not a folder")
    found = send(tmp_path, trained(1), round=1)
    assert equal(found, send(tmp_path, trained(1), round=2, counted=1))


def test_weights_that_are_not_finite_leave_nothing(tmp_path: Path) -> None:
    send(tmp_path, trained(1), round=1)
    broken = {**trained(2), "head/bias": np.array([0, np.nan, 0], np.float32)}
    instruction = Instruction("train", ASK.model_copy(update={"round": 2, "counted": 1}), RECEIVED)
    allowed(instruction, Answer(REPLY, arrays=broken), Policy(), tmp_path)
    assert kept(tmp_path) == ["1"]


def test_no_weight_gets_more_than_the_limit_of_what_was_left_out(tmp_path: Path) -> None:
    # Far too large a change: top-k keeps back most of it, more than the coordinator would believe.
    far = trained(1, 3.0)
    instruction = Instruction("train", ASK.model_copy(update={"compression": "top-k"}), RECEIVED)
    allowed(instruction, Answer(REPLY, arrays=far), Policy(), tmp_path)
    found = change(send(tmp_path, RECEIVED, round=2, counted=1, compression="top-k"))
    limit = UNSENT_REACH * farthest(ASK, EXAMPLES)
    largest = max(float(np.abs(array).max()) for array in found.values())
    assert 0.9 * limit < largest <= limit * (1 + 1e-5)


# -- with the site's privacy --------------------------------------------------------------------


def norm(arrays: dict[str, NDArray[Any]]) -> float:
    reached = decompress(arrays, RECEIVED)
    squares = [np.square(reached[n].astype(np.float64) - RECEIVED[n]).sum() for n in RECEIVED]
    return float(np.sqrt(sum(squares)))


def moving(seed: int) -> NamedWeights:
    """Trained weights whose statistics stayed: they would make up most of the norm."""
    return {**trained(seed), "bn/moving_variance": RECEIVED["bn/moving_variance"]}


@pytest.mark.parametrize("method", METHODS)
def test_a_clipped_update_stays_within_its_norm(method: Compression, tmp_path: Path) -> None:
    clip = 0.03
    lengths = []
    for number in range(1, 7):
        ask: dict[str, Any] = {"round": number, "counted": number - 1, "compression": method}
        lengths.append(norm(send(tmp_path, moving(number), policy(clip_norm=clip), **ask)))
    assert max(lengths) <= clip * (1 + 1e-4) and min(lengths) > clip / 3
    assert kept(tmp_path) == ["5", "6"]
    # What was clipped away is not kept for later.
    assert np.sqrt(sum(np.square(a).sum() for a in left_out(tmp_path, 6).values())) < clip


def test_under_noise_nothing_is_kept_nor_added(tmp_path: Path) -> None:
    send(tmp_path, trained(1), round=1)
    noise = policy(clip_norm=0.05, epsilon=50.0)
    second = send(tmp_path, trained(2), noise, round=2, counted=1)
    assert kept(tmp_path) == []
    # The same update has the same noise: nothing was added to it.
    assert equal(second, send(tmp_path, trained(2), noise, round=5, counted=0))
    quiet = send(tmp_path, trained(3), round=6, counted=5)
    assert equal(quiet, without_memory(trained(3), "quantization"))


# -- what is said of it -------------------------------------------------------------------------


def test_the_audit_log_says_that_a_compressed_change_was_sent(tmp_path: Path) -> None:
    for method, said in (("none", "weights"), ("quantization", "compressed change")):
        ask = ASK.model_copy(update={"compression": method})
        instruction = Instruction("train", ask, arrays=RECEIVED)
        answer = allowed(instruction, Answer(REPLY, arrays=trained(1)), Policy(), tmp_path)
        found = contents(instruction, answer)
        assert found == {"case numbers", "loss", "times", said}


def test_without_compression_nothing_is_written(tmp_path: Path) -> None:
    weights = trained(1)
    instruction = Instruction("train", ASK.model_copy(update={"compression": "none"}), RECEIVED)
    answer = Answer(REPLY, arrays=weights)
    assert allowed(instruction, answer, Policy(), tmp_path) is answer
    assert not list(tmp_path.iterdir())
