"""ResNet-50 in Keras with the ImageNet weights file that `tf_keras.applications` downloads.

The network of arXiv 1512.03385, which QANA (arXiv 2507.15958) crops with. The weights are not
part of any package: whoever has network access gets them with
``tf_keras.applications.ResNet50()``, which leaves the file in ``~/.keras/models``.
"""

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from common.errors import DataNotFound, DataUnreadable
from common.keras_setup import keras

FEATURES = "conv5_block3_out"
"""Name of the layer with the last feature maps, 7 x 7 x 2048."""

FINER = ("conv3_block4_out", "conv4_block6_out", FEATURES)
"""Layers of 28 x 28 x 512 and 14 x 14 x 1024, and the last, for contrast."""

_MEAN_BGR = np.array([103.939, 116.779, 123.68], np.float32)
_LAYERS = 106
"""Layers with weights below the classifying one: 53 convolutions, each with its batch norm."""


def load_resnet50(path: Path) -> keras.Model:
    """The frozen network: float32 images (n, 224, 224, 3), normalized, to logits (n, classes).

    From a file without the classifying layer the result is the last feature maps,
    (n, 7, 7, 2048).

    Raises
    ------
    DataNotFound
        No such file.
    DataUnreadable
        Not an HDF5 file, or not one of ResNet-50's weights.
    """
    shapes = _kernel_shapes(path)
    if len(shapes) not in (_LAYERS, _LAYERS + 1):
        raise _other_file(path, f"it has {len(shapes)} layers with weights")
    has_top = len(shapes) > _LAYERS
    top = {"classes": shapes[-1][-1], "classifier_activation": None} if has_top else {}
    model = keras.applications.ResNet50(
        include_top=has_top, weights=None, input_shape=(224, 224, 3), **top
    )
    try:
        model.load_weights(str(path))  # by order, as tf_keras.applications does
    except (ValueError, OSError, KeyError) as error:
        raise _other_file(path, "a layer has another shape") from error
    if not all(np.isfinite(weights).all() for weights in model.get_weights()):
        raise _other_file(path, "some of its numbers are not finite")
    return model


def normalized(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """RGB values as the network was trained on them: BGR less the mean of ImageNet."""
    return images[..., ::-1].astype(np.float32) - _MEAN_BGR


def _kernel_shapes(path: Path) -> list[tuple[int, ...]]:
    """Shape of the first weight of each layer that has any, in the file's order."""
    if not path.is_file():
        raise DataNotFound(
            f"there is no weights file {path}; 'python -c \"import tf_keras; "
            "tf_keras.applications.ResNet50()\"' downloads it into ~/.keras/models"
        )
    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)  # in a whole model's file
            groups = [root[name] for name in root.attrs["layer_names"]]
            names = [list(group.attrs["weight_names"]) for group in groups]
            return [
                tuple(group[weights[0]].shape)
                for group, weights in zip(groups, names, strict=True)
                if weights
            ]
    except (OSError, AttributeError, KeyError, RuntimeError) as error:
        raise _other_file(path, "it is not an HDF5 file of weights, or damaged") from error


def _other_file(path: Path, why: str) -> DataUnreadable:
    return DataUnreadable(
        f"{path} does not hold the weights of tf_keras.applications.ResNet50 ({why}); name the "
        "file resnet50_weights_tf_dim_ordering_tf_kernels.h5 or the one with _notop"
    )
