"""Pretraining: pictures from numbers, whitened targets, and a network that learns them."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from common.data.synthetic import synthetic_lesion_images, write_class_folders
from common.errors import DataNotFound, DataUnreadable
from common.qana.networks import initial_weights
from common.saliency.lite0 import load_lite0
from server.pretraining.distil import distil
from server.pretraining.pictures import folder_pictures, procedural_pictures
from server.pretraining.targets import COMPONENTS, Targets, feature_targets, whitened
from tests.support.tiny_run import TINY


@pytest.mark.parametrize("size", [32, 64])
def test_a_picture_depends_on_seed_and_number_only(size: int) -> None:
    some, more = procedural_pictures(4, size, seed=3), procedural_pictures(12, size, seed=3)
    assert some.shape == (4, size, size, 3)
    assert some.dtype == np.uint8
    assert np.array_equal(some, more[:4])
    others = procedural_pictures(4, size, seed=4)
    assert all(not np.array_equal(a, b) for a, b in zip(some, others, strict=True))
    assert len({picture.tobytes() for picture in more}) == 12


def test_pictures_are_of_many_colours_and_hardly_any_is_plain() -> None:
    pictures = procedural_pictures(200, 32, seed=0).astype(np.float64)
    assert (pictures.std(axis=(1, 2)).max(axis=1) < 2).mean() < 0.05
    means = pictures.mean(axis=(1, 2))
    assert (means.std(axis=0) > 30).all()


def test_pictures_of_a_folder_are_their_centred_squares(tmp_path: Path) -> None:
    wide = np.zeros((40, 80, 3), np.uint8)
    wide[:, 20:60] = 200
    (tmp_path / "below").mkdir()
    Image.fromarray(wide).save(tmp_path / "below" / "b.png")
    Image.fromarray(wide[:, :40]).save(tmp_path / "a.JPG")
    (tmp_path / "note.txt").write_text("no picture")
    found = folder_pictures(tmp_path, 32)
    assert found.shape == (2, 32, 32, 3)
    assert (found[1] == 200).all()


def test_a_folder_without_pictures_and_a_damaged_one_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match="procedural"):
        folder_pictures(tmp_path, 32)
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataUnreadable, match=r"cut\.png"):
        folder_pictures(tmp_path, 32)


@settings(deadline=None, max_examples=25)
@given(n=st.integers(80, 300), width=st.integers(2, 40), seed=st.integers(0, 99))
def test_targets_are_white_and_weighted_by_how_much_they_vary(
    n: int, width: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    scales = rng.uniform(0.5, 5, width)
    features = (rng.normal(size=(n, width)) * scales + 3).astype(np.float32)
    targets = whitened(features)
    components = targets.values.shape[1]
    assert components == min(COMPONENTS, width, n // 2)
    assert np.allclose(targets.values.mean(axis=0), 0, atol=1e-4)
    covariance = np.cov(targets.values.astype(np.float64), rowvar=False).reshape(components, -1)
    assert np.allclose(covariance, np.eye(components), atol=1e-3)
    assert targets.weights.mean() == pytest.approx(1)
    assert (np.diff(targets.weights) <= 1e-6).all()
    assert 0 < targets.explained <= 1 + 1e-9


def test_a_network_learns_what_it_can_see_and_keeps_its_head() -> None:
    pictures = procedural_pictures(400, TINY.input_size, seed=1)
    brightness = pictures.mean(axis=(1, 2)).astype(np.float64)
    values = ((brightness - brightness.mean(axis=0)) / brightness.std(axis=0)).astype(np.float32)
    told: list[tuple[int, float, float]] = []
    made = distil(
        TINY, pictures, Targets(values, np.ones(3, np.float32), 1.0), 12, 0,
        lambda *each: told.append(each),
    )  # fmt: skip
    assert [epoch for epoch, _, _ in told] == list(range(1, 13))
    assert made.unexplained == told[-1][2] < 0.6
    assert told[-1][1] < told[0][1] / 2
    drawn = initial_weights(TINY, 2, seed=0)
    assert {n: a.shape for n, a in made.weights.items()} == {n: a.shape for n, a in drawn.items()}
    shuffled = np.random.default_rng(0).permutation(len(values))
    wrong = Targets(values[shuffled], np.ones(3, np.float32), 1.0)
    assert distil(TINY, pictures, wrong, 3, 0).unexplained > 0.9  # nothing to be seen of these


def test_equal_arguments_make_equal_weights() -> None:
    pictures = procedural_pictures(96, TINY.input_size, seed=1)
    values = np.random.default_rng(0).normal(size=(96, 4)).astype(np.float32)
    targets = Targets(values, np.ones(4, np.float32), 1.0)
    first, again = (distil(TINY, pictures, targets, 1, 7).weights for _ in range(2))
    other = distil(TINY, pictures, targets, 1, 8).weights
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["stem/kernel"], other["stem/kernel"])


def test_features_tell_lesions_apart_from_textures(tmp_path: Path) -> None:
    write_class_folders(synthetic_lesion_images(50, 0), tmp_path)
    lesions = folder_pictures(tmp_path, 64)[:48]
    heard: list[int] = []
    pictures = np.concatenate([lesions, procedural_pictures(48, 64, 0)])
    targets = feature_targets(pictures, load_lite0(), heard.append)
    assert heard == [64, 96]
    assert targets.values.shape == (96, 48)
    even, odd = targets.values[::2], targets.values[1::2]
    middles = np.stack([even[:24].mean(axis=0), even[24:].mean(axis=0)])
    distance = ((odd[:, None] - middles) ** 2 * targets.weights).sum(axis=-1)
    assert (distance.argmin(axis=1) == np.repeat([0, 1], 24)).mean() > 0.8
