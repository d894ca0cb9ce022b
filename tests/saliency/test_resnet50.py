import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from common.errors import DataNotFound, DataUnreadable, SettingsError
from common.keras_setup import keras
from common.saliency import resnet50
from common.saliency.heat import HeatMaps
from common.saliency.networks import saliency_network


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Weights files as `tf_keras.applications` has them, of random weights."""
    folder = tmp_path_factory.mktemp("weights")
    keras.utils.set_random_seed(0)
    paths = {}
    whole = keras.applications.ResNet50(weights=None, classes=10)
    bare = keras.Model(whole.input, whole.get_layer(resnet50.FEATURES).output)
    for name, model in (("top", whole), ("notop", bare)):
        paths[name] = folder / f"{name}.h5"
        model.save_weights(paths[name])
    return paths


def test_with_classes(files: dict[str, Path]) -> None:
    model = resnet50.load_resnet50(files["top"])
    assert model.output_shape == (None, 10)
    image = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    seen = resnet50.normalized(image)
    np.testing.assert_allclose(
        seen, keras.applications.resnet50.preprocess_input(image.astype(np.float32)), atol=1e-4
    )
    with h5py.File(files["top"]) as file:
        stored = file["conv5_block3_3_conv/conv5_block3_3_conv/kernel:0"][:]
    np.testing.assert_array_equal(model.get_layer("conv5_block3_3_conv").get_weights()[0], stored)
    found = HeatMaps(model, (resnet50.FEATURES,), "grad-cam").of(seen)
    assert found.shape == (1, 7, 7) and found.min() >= 0


def test_without_classes(files: dict[str, Path]) -> None:
    assert resnet50.load_resnet50(files["notop"]).output_shape == (None, 7, 7, 2048)
    network = saliency_network("contrast", files["notop"])
    assert network.key.startswith("contrast-resnet50-")
    with pytest.raises(SettingsError, match="no classifying layer"):
        saliency_network("grad-cam", files["notop"])


def test_another_file_is_noticed(files: dict[str, Path], tmp_path: Path) -> None:
    other = tmp_path / "other.h5"
    keras.Sequential([keras.layers.Dense(3, input_shape=(2,))]).save_weights(other)
    text, cut = tmp_path / "text.h5", tmp_path / "cut.h5"
    text.write_text("not found")
    cut.write_bytes(files["notop"].read_bytes()[:100_000])
    for path in (other, text, cut, tmp_path):
        kind = DataNotFound if path == tmp_path else DataUnreadable
        with pytest.raises(kind) as caught:
            resnet50.load_resnet50(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    with pytest.raises(DataNotFound, match="downloads it"):
        saliency_network("contrast", tmp_path / "absent.h5")


def test_numbers_that_are_none(files: dict[str, Path], tmp_path: Path) -> None:
    shutil.copy(files["notop"], tmp_path / "nan.h5")
    with h5py.File(tmp_path / "nan.h5", "r+") as file:
        file["conv1_conv/conv1_conv/kernel:0"][0, 0, 0, 0] = np.nan
    with pytest.raises(DataUnreadable, match="not finite"):
        resnet50.load_resnet50(tmp_path / "nan.h5")
