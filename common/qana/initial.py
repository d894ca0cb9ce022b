"""Where a run's network starts: drawn at random, or the weights of a pretrained one.

Federated training gains from a pretrained start, the more the less alike the sites are (Nguyen et
al., arXiv 2210.08090; Chen et al., arXiv 2206.11488). The weights that come with FedQANA were
made without anybody's images, by `fedqana model pretrain`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.arrays import from_npz, to_npz
from common.errors import DataNotFound, DataUnreadable, SettingsError
from common.files import sha256_of
from common.qana.config import DEMO_CONFIG, WHOLE_CONFIG, QanaConfig
from common.qana.weights import NamedWeights, fault_of, is_statistic

PRETRAINED = "pretrained"
RANDOM = "random"

ABOUT = "about"
"""Name of the array that says how a file came about: JSON as uint8."""

_LARGEST_FILE = 64 * 2**20
_HEAD = "head/"
_FOLDER = Path(__file__).with_name("pretrained")
_FILES = {
    QanaConfig().digest(): "default.npz",
    WHOLE_CONFIG.digest(): "whole.npz",
    DEMO_CONFIG.digest(): "small.npz",
}


def initial_content(choice: str, config: QanaConfig) -> bytes:
    """The file that a choice names: "pretrained", "random" (which has none: empty) or a path.

    Raises
    ------
    SettingsError
        No pretrained weights come with this shape.
    DataNotFound, DataUnreadable
        The file is absent, or not the weights of such a network.
    """
    if choice == RANDOM:
        return b""
    if choice == PRETRAINED:
        name = _FILES.get(config.digest())
        if name is None:
            raise SettingsError(
                "no pretrained weights come with a network of this shape; start it at random, or "
                "make some with 'fedqana model pretrain'"
            )
        return (_FOLDER / name).read_bytes()
    try:
        if Path(choice).stat().st_size > _LARGEST_FILE:
            raise DataUnreadable(
                f"{choice} is too large for a network's weights; name another file"
            )
        content = Path(choice).read_bytes()
    except FileNotFoundError as error:
        raise DataNotFound(
            f"there is no file {choice}; say pretrained, random, or the file of a network's weights"
        ) from error
    except OSError as error:
        raise DataUnreadable(f"cannot read {choice}: {error.strerror}") from error
    start_from(content, config, 2, seed=0, name=choice)
    return content


def shown(start: str) -> str:
    """What a plan calls its start, for people: the weights that come with FedQANA by name."""
    if start == RANDOM:
        return RANDOM
    known = any(sha256_of((_FOLDER / file).read_bytes()) == start for file in _FILES.values())
    return f"{PRETRAINED} ({start[:12]})" if known else f"weights {start[:12]}"


def start_id(content: bytes) -> str:
    """What a plan calls the content: its SHA-256, or "random" where it is empty."""
    return sha256_of(content) if content else RANDOM


def start_from(
    content: bytes,
    config: QanaConfig,
    n_classes: int,
    seed: int,
    name: str = "the file of initial weights",
) -> NamedWeights:
    """The float network's first weights, float32 by name.

    Random ones that depend on the seed only, with those of ``content`` in place of all but the
    classifying layer's: its classes are other ones. Raises DataUnreadable, calling the content
    ``name``, where it is not the weights of such a network.
    """
    from common.qana.networks import initial_weights  # imports TensorFlow

    weights = initial_weights(config, n_classes, seed)
    if not content:
        return weights
    what = "make them again with 'fedqana model pretrain', or name another file"
    try:
        stored = from_npz(content, uncompressed=True)
    except ValueError as error:
        raise DataUnreadable(f"{name}: {error}; {what}") from error
    more = [key for key in stored if key not in weights and key != ABOUT]
    if more and not more[0].startswith(_HEAD):
        raise DataUnreadable(
            f"{name} is of a network with more elements than this one ({more[0]}); {what}"
        )
    for key, array in weights.items():
        if key.startswith(_HEAD):
            continue
        found = stored.get(key)
        if found is None or found.shape != array.shape or found.dtype.kind != "f":
            raise DataUnreadable(f"{name} is not of a network of this shape ({key}); {what}")
        weights[key] = found.astype(np.float32)
        if fault := fault_of(key, weights[key]):
            raise DataUnreadable(f"{name} has {fault[1]} in {key}, as no network has; {what}")
    return weights


def to_content(weights: NamedWeights, about: dict[str, Any]) -> bytes:
    """A file of initial weights, with how they came about as JSON values.

    In half precision, which is more than a start needs; the statistics, whose range is wider, in
    full. The classifying layer is left out.
    """
    arrays: dict[str, NDArray[Any]] = {
        key: array if is_statistic(key) else array.astype(np.float16)
        for key, array in weights.items()
        if not key.startswith(_HEAD)
    }
    return to_npz({**arrays, ABOUT: np.frombuffer(json.dumps(about).encode(), np.uint8)})
