"""The frozen networks that say where to look, chosen by the weights file that a user names.

Without a name it is EfficientNet-Lite0; a name is of ResNet-50's weights. Either is made once a
process.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.errors import SettingsError
from common.files import sha256_of
from common.saliency.heat import HeatMaps, Method

SIDE = 224
"""Pixels of the square that either network looks at; frames are squeezed to it."""

_HASH_DIGITS = 16


@dataclass(frozen=True, eq=False)
class SaliencyNetwork:
    """A frozen network that makes heat maps of pictures.

    Parameters
    ----------
    key : str
        Names network, layer, method and the SHA-256 of its weights: equal keys, equal heat.
    method : "contrast" or "grad-cam"
    heat_maps : HeatMaps
    normalized : callable
        From uint8 images to what the network was trained on.
    """

    key: str
    method: Method
    heat_maps: HeatMaps
    normalized: Callable[[NDArray[np.uint8]], NDArray[np.float32]]

    def heat(self, picture: Image.Image) -> NDArray[np.float32]:
        """The heat, float32 (rows, columns), over the whole of an RGB picture.

        One picture at a time: in a batch its last bits would depend on the others, and a lesion
        must be cropped later just as it was for training.
        """
        small = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.uint8)
        with _one_at_a_time:
            heat: NDArray[np.float32] = self.heat_maps.of(self.normalized(small[None]))[0]
        return heat


_one_at_a_time = threading.Lock()
"""The local service answers from several threads; one image already keeps the processor busy."""


def saliency_network(method: Method, weights: Path | None = None) -> SaliencyNetwork:
    """EfficientNet-Lite0, or ResNet-50 with the named weights.

    Parameters
    ----------
    method : "contrast" or "grad-cam"
    weights : Path, optional
        A file as `tf_keras.applications.ResNet50` downloads it.

    Raises
    ------
    SettingsError
        The package with Lite0's weights is not installed; Grad-CAM with weights that have no
        classifying layer.
    DataNotFound, DataUnreadable
        The weights file is absent, damaged, or of another network.
    """
    if weights is None:
        return _lite0(method)
    weights = weights.resolve()
    return _resnet50(method, weights, weights.stat().st_mtime_ns if weights.exists() else 0)


@lru_cache(maxsize=2)
def _lite0(method: Method) -> SaliencyNetwork:
    from common.saliency import lite0

    layers = lite0.FINER if method == "contrast" else (lite0.FEATURES,)
    maps = HeatMaps(lite0.load_lite0(), layers, method)
    key = f"{method}-lite0-{lite0.SHA256[:_HASH_DIGITS]}"
    return SaliencyNetwork(key, method, maps, lite0.normalized)


@lru_cache(maxsize=2)
def _resnet50(method: Method, path: Path, changed: int) -> SaliencyNetwork:
    from common.saliency import resnet50

    model = resnet50.load_resnet50(path)
    if method == "grad-cam" and len(model.output_shape) != 2:
        raise SettingsError(
            f"{path} has no classifying layer, which Grad-CAM needs; name the file without _notop, "
            "or use the saliency crop"
        )
    digest = sha256_of(path.read_bytes())[:_HASH_DIGITS]
    layers = resnet50.FINER if method == "contrast" else (resnet50.FEATURES,)
    maps = HeatMaps(model, layers, method)
    return SaliencyNetwork(f"{method}-resnet50-{digest}", method, maps, resnet50.normalized)
