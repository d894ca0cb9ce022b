import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.bundle import (
    CARD,
    FLOAT,
    PROGRAM,
    QUANTIZED,
    Bundle,
    load_bundle,
    parse_card,
    save_bundle,
)
from common.errors import BundleDamaged, ModelNotFound, StorageFull
from common.files import replace_folder
from tests.bundle.parts import small_bundle

FILES = (PROGRAM, QUANTIZED, FLOAT)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle's folder; whoever changes it puts it back."""
    folder = tmp_path_factory.mktemp("bundles") / "1"
    save_bundle(small_bundle(), folder)
    return folder


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    bundle = small_bundle()
    save_bundle(bundle, tmp_path / "deep" / "1")
    loaded = load_bundle(tmp_path / "deep" / "1")
    assert loaded.card == bundle.card and loaded.files == bundle.files
    for name, array in bundle.weights(FLOAT).items():
        np.testing.assert_array_equal(loaded.weights(FLOAT)[name], array)
    assert set(loaded.weights(QUANTIZED)) == {"head/kernel"}
    assert loaded.card.software["fedqana"] and loaded.card.software["numpy"] == np.__version__
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["1"]


def test_a_card_names_its_crop_and_one_that_was_written_before_keeps_its_seal() -> None:
    before = small_bundle().card
    assert b'"crop"' not in before.to_bytes()
    assert parse_card(before.to_bytes()) == before
    card = before.model_copy(update={"crop": "whole"})
    assert parse_card(card.to_bytes()).crop == "whole"
    with pytest.raises(BundleDamaged, match="crop"):
        parse_card(card.to_bytes().replace(b'"whole"', b'"round"'))


def test_a_card_says_whether_sites_answer_by_eight_views() -> None:
    before = small_bundle().card
    assert b"all_symmetries" not in before.to_bytes() and not before.all_symmetries
    card = before.model_copy(update={"all_symmetries": True})
    assert parse_card(card.to_bytes()) == card


def test_equal_parts_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_bundle(small_bundle(), tmp_path / name)
        time.sleep(2.1 if name == "a" else 0)  # zip stores times in steps of two seconds
    for name in (*FILES, CARD):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=25)
@given(share=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_one_changed_byte_is_noticed(saved: Path, name: str, share: float, flip: int) -> None:
    file = saved / name
    content = file.read_bytes()
    position = int(share * len(content))
    damaged = bytearray(content)
    damaged[position] ^= flip
    try:
        file.write_bytes(damaged)
        with pytest.raises(BundleDamaged, match=name):
            load_bundle(saved)
    finally:
        file.write_bytes(content)


@settings(max_examples=60)
@given(share=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_one_changed_byte_of_the_card_is_noticed(saved: Path, share: float, flip: int) -> None:
    file = saved / CARD
    content = file.read_bytes()
    damaged = bytearray(content)
    damaged[int(share * len(content))] ^= flip
    try:
        file.write_bytes(damaged)
        with pytest.raises(BundleDamaged, match=CARD):
            load_bundle(saved)
    finally:
        file.write_bytes(content)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("cut", [0, 10])
def test_a_cut_file_is_noticed(saved: Path, name: str, cut: int) -> None:
    content = (saved / name).read_bytes()
    try:
        (saved / name).write_bytes(content[:cut])
        with pytest.raises(BundleDamaged, match=name):
            load_bundle(saved)
    finally:
        (saved / name).write_bytes(content)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    save_bundle(small_bundle(), tmp_path / "1")
    (tmp_path / "1" / name).unlink()
    with pytest.raises(BundleDamaged, match=name):
        load_bundle(tmp_path / "1")


def test_a_card_that_vouches_for_too_little_is_refused(tmp_path: Path) -> None:
    save_bundle(small_bundle(), tmp_path / "1")
    card = small_bundle().card
    hashes = {name: value for name, value in card.sha256.items() if name != PROGRAM}
    narrower = card.model_copy(update={"sha256": hashes})
    (tmp_path / "1" / CARD).write_bytes(narrower.to_bytes())
    with pytest.raises(BundleDamaged, match=PROGRAM):
        load_bundle(tmp_path / "1")


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"format": 2}, "format"),
        ({"phase": "double"}, "phase"),
        ({"note": "more"}, "note"),
        ({"classes": "mel"}, "classes"),
        ({"config": {"stem": 7}}, "config"),
        ({"version": None}, "version"),
    ],
)
def test_a_card_of_another_form_is_refused(change: dict[str, object], where: str) -> None:
    card = json.loads(small_bundle().card.to_bytes())
    with pytest.raises(BundleDamaged, match=where):
        parse_card(json.dumps(card | change).encode())


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_what_is_no_card_is_refused_in_one_line(content: bytes) -> None:
    with pytest.raises(BundleDamaged) as refusal:
        parse_card(content)
    assert "\n" not in str(refusal.value)


def test_no_bundle_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        load_bundle(tmp_path)
    with pytest.raises(ModelNotFound):
        load_bundle(tmp_path / "nowhere")


def test_files_that_are_not_the_cards_are_refused_in_memory_too() -> None:
    bundle = small_bundle()
    with pytest.raises(BundleDamaged):
        Bundle(bundle.card, {**bundle.files, PROGRAM: b"other"})
    with pytest.raises(BundleDamaged):
        Bundle(bundle.card, {**bundle.files, "unlisted": b""})
    with pytest.raises(BundleDamaged):
        Bundle(bundle.card, {PROGRAM: bundle.files[PROGRAM]}).weights(FLOAT)


def test_saving_again_replaces_the_whole_folder(tmp_path: Path) -> None:
    save_bundle(small_bundle(1), tmp_path / "1")
    (tmp_path / "1" / "stray").touch()
    save_bundle(small_bundle(2), tmp_path / "1")
    assert load_bundle(tmp_path / "1").card.version == 2
    assert sorted(p.name for p in (tmp_path / "1").iterdir()) == sorted((*FILES, CARD))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1"]


def test_a_folder_is_replaced_where_two_cannot_be_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.files._exchange", lambda a, b: False)
    for number in (1, 2):
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "file").write_text(str(number))
        replace_folder(tmp_path / "new", tmp_path / "target")
        assert (tmp_path / "target" / "file").read_text() == str(number)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["target"]


def test_a_folder_that_cannot_be_written_is_storage_full(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageFull):
        save_bundle(small_bundle(), tmp_path / "file" / "1")


def test_a_killed_save_leaves_a_whole_bundle(tmp_path: Path) -> None:
    expected = {version: small_bundle(version, size=200_000).files for version in (1, 2)}
    rng = np.random.default_rng(0)
    for _ in range(6):
        saver = subprocess.Popen(
            [sys.executable, "-m", "tests.bundle.saver", str(tmp_path)], stdout=subprocess.PIPE
        )
        assert saver.stdout is not None and saver.stdout.readline() == b"saving\n"
        seen = 0
        until = time.monotonic() + rng.uniform(0.05, 0.4)
        while time.monotonic() < until:
            assert (tmp_path / "1" / CARD).exists(), "a moment without any bundle"
            seen += 1
        saver.send_signal(signal.SIGKILL)
        saver.wait()
        saver.stdout.close()
        bundle = load_bundle(tmp_path / "1")
        assert bundle.files == expected[bundle.card.version]
        assert seen > 10
    save_bundle(small_bundle(3), tmp_path / "1")
    assert [p.name for p in tmp_path.iterdir()] == ["1"]
