"""Where a network starts: the weights that come with FedQANA, a file's, or random ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.arrays import from_npz, to_npz
from common.errors import DataNotFound, DataUnreadable, SettingsError
from common.qana.config import DEMO_CONFIG, WHOLE_CONFIG, QanaConfig
from common.qana.initial import (
    ABOUT,
    PRETRAINED,
    RANDOM,
    initial_content,
    start_from,
    start_id,
    to_content,
)
from common.qana.networks import initial_weights
from common.qana.weights import NamedWeights, is_statistic
from common.saliency.lite0 import SHA256
from tests.support.tiny_run import TINY


def about_of(content: bytes) -> dict[str, Any]:
    found = json.loads(from_npz(content)[ABOUT].tobytes())
    assert isinstance(found, dict)
    return found


def other_weights() -> NamedWeights:
    return initial_weights(TINY, 3, seed=5)


def content_of(weights: NamedWeights) -> bytes:
    return to_content(weights, {"seed": 5})


@pytest.mark.parametrize("config", [QanaConfig(), WHOLE_CONFIG, DEMO_CONFIG])
def test_weights_come_with_both_networks_and_are_in_all_of_it_but_the_head(
    config: QanaConfig,
) -> None:
    content = initial_content(PRETRAINED, config)
    first, second = start_from(content, config, 7, seed=1), start_from(content, config, 5, seed=2)
    drawn = initial_weights(config, 7, seed=1)
    assert list(first) == list(drawn)
    for name, array in first.items():
        assert array.dtype == np.float32
        assert array.shape == drawn[name].shape
        if name.startswith("head/"):
            assert np.array_equal(array, drawn[name])
        else:
            assert np.array_equal(array, second[name])
    assert not np.array_equal(first["stem/kernel"], drawn["stem/kernel"])


@pytest.mark.parametrize("config", [QanaConfig(), WHOLE_CONFIG, DEMO_CONFIG])
def test_the_weights_say_that_nobodys_images_are_in_them(config: QanaConfig) -> None:
    about = about_of(initial_content(PRETRAINED, config))
    assert about["pictures"].startswith("procedural:")
    assert about["teacher"].endswith(SHA256)
    assert 0 < about["unexplained"] < 0.9


def test_a_random_start_has_no_file() -> None:
    assert initial_content(RANDOM, TINY) == b""
    assert start_id(b"") == RANDOM
    drawn, started = initial_weights(TINY, 4, seed=3), start_from(b"", TINY, 4, seed=3)
    assert all(np.array_equal(drawn[name], started[name]) for name in drawn)


def test_a_file_is_taken_up_in_half_precision_but_for_statistics(tmp_path: Path) -> None:
    weights = other_weights()
    weights["stem_bn/moving_variance"] = np.full(8, 1234.567, np.float32)
    (tmp_path / "start.npz").write_bytes(content_of(weights))
    content = initial_content(str(tmp_path / "start.npz"), TINY)
    assert len(start_id(content)) == 64
    assert about_of(content) == {"seed": 5}
    assert not any(name.startswith("head/") for name in from_npz(content))
    started = start_from(content, TINY, 7, seed=0)
    for name, array in weights.items():
        if is_statistic(name):
            assert np.array_equal(started[name], array)
        elif not name.startswith("head/"):
            assert np.allclose(started[name], array, rtol=2**-10, atol=1e-7)


def test_the_weights_of_a_bundle_are_such_a_file_too(tmp_path: Path) -> None:
    weights = other_weights()
    (tmp_path / "float.npz").write_bytes(to_npz(weights))
    started = start_from(initial_content(str(tmp_path / "float.npz"), TINY), TINY, 3, seed=0)
    assert np.array_equal(started["stem/kernel"], weights["stem/kernel"])
    assert not np.array_equal(started["head/kernel"], weights["head/kernel"])


def without(name: str) -> Callable[[NamedWeights], NamedWeights]:
    return lambda weights: {n: a for n, a in weights.items() if n != name}


def with_value(name: str, value: float) -> Callable[[NamedWeights], NamedWeights]:
    return lambda weights: {**weights, name: np.full_like(weights[name], value)}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (without("spikes/kernel"), "spikes/kernel"),
        (lambda w: {**w, "stem/kernel": w["stem/kernel"][..., :4]}, "stem/kernel"),
        (with_value("stem/kernel", np.nan), "stem/kernel"),
        (with_value("stem_bn/moving_variance", -1.0), "stem_bn/moving_variance"),
        (with_value("stem_bn/moving_mean", 2e4), "stem_bn/moving_mean"),
    ],
    ids=["missing", "other shape", "not a number", "negative variance", "too large"],
)
def test_weights_of_something_else_are_refused(
    tmp_path: Path, changed: Callable[[NamedWeights], NamedWeights], said: str
) -> None:
    file = tmp_path / "other.npz"
    file.write_bytes(to_npz(changed(other_weights())))
    with pytest.raises(DataUnreadable, match=said) as error:
        initial_content(str(file), TINY)
    assert "fedqana model pretrain" in str(error.value)


def test_a_file_that_is_none_or_not_there_is_named(tmp_path: Path) -> None:
    file = tmp_path / "start.npz"
    with pytest.raises(DataNotFound, match="pretrained, random"):
        initial_content(str(file), TINY)
    file.write_bytes(content_of(other_weights())[:-100])
    with pytest.raises(DataUnreadable, match=r"start\.npz"):
        initial_content(str(file), TINY)


def test_a_shape_that_no_weights_come_with_says_what_to_do() -> None:
    with pytest.raises(SettingsError, match="random"):
        initial_content(PRETRAINED, TINY)
