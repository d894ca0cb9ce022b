"""A site's trained weights as their change in a few bits each, and back.

What travels is the same whatever the method: a whole number from -127 to 127 (level) for each
trained weight, all of them compressed together (zlib, RFC 1950: runs and Huffman's code), and a
float32 scale for each array; the change is level times scale. Batch norm's moving statistics go
as they are: they are states rather than changes, the coordinator judges them by themselves, and
they are 1.2 % of the float network's values (the quantized one has none). Names, shapes and order
are those of the weights that the site was sent, so none of them travels.

"quantization" divides an array's change by half its root mean square and rounds it to the nearest
whole number. The levels' mean square m is then about 4, and at most (2 + 1/2)^2. Whole numbers
have the entropy of their sum with noise uniform over one, which the normal distribution of that
variance bounds: log2(2 pi e (m + 1/12)) / 2 (Cover and Thomas, Elements of Information Theory,
chapter on differential entropy). So it takes 3.1 bits a weight, 3.4 at most, whatever the change
looks like, and a few hundredths more as Huffman's code is not ideal. QSGD (arXiv 1610.02132)
rounds at random, to be right on average; here the site sends later what rounding kept back
(`edge_client.unsent_change`), and the nearest is closer.

"top-k" gives each array's largest tenth of changes their level, a 127th of the largest one each,
and all others 0 (arXiv 1704.05021, 1712.01887).

The scale is the one that comes nearest in Euclidean norm. So what is sent is never longer than the
change (Cauchy-Schwarz), which a limit on its norm relies on; nor is any weight's part of it larger
than the array's largest, which the check of how far a weight may move relies on.
"""

import math
import zlib
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from common.errors import SiteRefused
from common.qana.weights import Float, NamedWeights, is_statistic

Compression = Literal["none", "quantization", "top-k"]
"""How a site's update travels; "none" is the trained weights themselves, float32."""

QUANTIZATION_STEP = 0.5
"""Of an array's root mean square; 0.5 makes a ninth of float32 of the whole reply."""

TOP_SHARE = 0.1
"""Of an array's changes that top-k sends in a round; the others wait."""

LARGEST_LEVEL = 127

_LEVELS, _SCALES, _STATISTICS = "levels", "scales", "statistics"


def compress(
    weights: NamedWeights, received: NamedWeights, method: Compression
) -> dict[str, NDArray[Any]]:
    """The change from ``received`` to ``weights``, small.

    Parameters
    ----------
    weights, received : named float32 arrays
        With the same names and shapes.
    method : "quantization" or "top-k"

    Returns
    -------
    dict of str to array
        ``levels``, uint8 (bytes,): zlib's stream of one signed byte a trained weight, arrays in
        the order of ``received``; ``scales``, float32 (trained arrays,), NaN for an array whose
        change is not finite; ``statistics``, float32 (values,): batch norm's, from ``weights``.
    """
    levels, scales = [], []
    for name, before in received.items():
        if is_statistic(name):
            continue
        change = (weights[name].astype(np.float64) - before).ravel()
        finite = bool(np.isfinite(change).all())
        level = _levels(change, method) if finite else np.zeros(change.size)
        levels.append(level.astype(np.int8))
        scales.append(_scale(change, level) if finite else np.nan)
    statistics = [weights[name].ravel() for name in received if is_statistic(name)]
    return {
        _LEVELS: np.frombuffer(_packed(np.concatenate(levels).tobytes()), np.uint8),
        _SCALES: np.array(scales, np.float32),
        _STATISTICS: np.concatenate([np.zeros(0, np.float32), *statistics]),
    }


def _levels(change: NDArray[np.float64], method: Compression) -> NDArray[np.float64]:
    if not change.any():
        return np.zeros(change.size)
    if method == "quantization":
        step = QUANTIZATION_STEP * float(np.sqrt(np.square(change).mean()))
        levels = np.rint(change / step).clip(-LARGEST_LEVEL, LARGEST_LEVEL)
    else:
        sizes = np.abs(change)
        n_left = change.size - math.ceil(TOP_SHARE * change.size)
        levels = np.rint(change / sizes.max() * LARGEST_LEVEL)
        levels[np.argpartition(sizes, n_left)[:n_left]] = 0
    return np.asarray(levels, np.float64)


def _scale(change: NDArray[np.float64], level: NDArray[np.float64]) -> float:
    """The nearest scale, or a lower one where the largest level would exceed all changes."""
    largest = np.abs(level).max(initial=0.0)
    if largest == 0:
        return 0.0
    nearest = float(change @ level / (level @ level))
    return min(nearest, float(np.abs(change).max() / largest))


def decompress(arrays: Mapping[str, NDArray[Any]], received: NamedWeights) -> NamedWeights:
    """The weights that a compressed change leads to, in the order of ``received``.

    Parameters
    ----------
    arrays : dict of str to array
        As `compress` returns them; from a site, so anything.
    received : named float32 arrays
        What the site was sent.

    Raises
    ------
    SiteRefused
        Not such arrays: "names", "shape", "type", "not-finite" (a scale) or "malformed" (levels
        that do not unpack to exactly one for each trained weight, a negative scale). No more is
        ever unpacked than that. The weights themselves may be anything, also infinite.
    """
    if set(arrays) != {_LEVELS, _SCALES, _STATISTICS}:
        raise SiteRefused("names", "the update is not a compressed change, which was asked for")
    trained = [name for name in received if not is_statistic(name)]
    others = [name for name in received if is_statistic(name)]
    packed = _checked(arrays, _LEVELS, np.uint8, None)
    scales = _checked(arrays, _SCALES, np.float32, len(trained))
    if not np.isfinite(scales).all():
        raise SiteRefused("not-finite", "a compressed change with a scale that is not finite")
    if scales.min(initial=0.0) < 0:
        raise SiteRefused("malformed", "a compressed change with a negative scale")
    n_others = sum(received[name].size for name in others)
    statistics = _checked(arrays, _STATISTICS, np.float32, n_others)
    content = _unpacked(packed.tobytes(), sum(received[name].size for name in trained))
    levels = np.frombuffer(content, np.int8)
    found: NamedWeights = {}
    with np.errstate(over="ignore", invalid="ignore"):  # whoever asked looks at the weights
        for name, part, scale in zip(
            trained, _split(levels, trained, received), scales, strict=True
        ):
            found[name] = received[name] + part.astype(np.float32) * scale
    for name, values in zip(others, _split(statistics, others, received), strict=True):
        found[name] = values
    return {name: found[name] for name in received}


def _checked(
    arrays: Mapping[str, NDArray[Any]], name: str, kind: type[np.generic], size: int | None
) -> NDArray[Any]:
    """One of the arrays, of one dimension; of any size where that is None."""
    array = arrays[name]
    if array.dtype != kind:
        raise SiteRefused("type", f"a compressed change whose {name} are not {kind.__name__}")
    if array.ndim != 1 or (size is not None and array.size != size):
        raise SiteRefused("shape", f"a compressed change with {name} of another shape")
    return array


def _packed(content: bytes) -> bytes:
    # Levels hardly repeat: a search for longer repetitions takes longer, and costs a sixth more.
    stream = zlib.compressobj(strategy=zlib.Z_RLE)
    return stream.compress(content) + stream.flush()


def _unpacked(packed: bytes, size: int) -> bytes:
    """What zlib's stream holds, which is ``size`` bytes and whole, or SiteRefused."""
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(packed, size + 1)  # not more: it may be a bomb
    except zlib.error as error:
        raise SiteRefused("malformed", "a compressed change whose levels are damaged") from error
    if len(content) != size or not stream.eof or stream.unused_data:
        raise SiteRefused("malformed", "a compressed change with other levels than weights")
    return content


def _split(values: NDArray[Any], names: list[str], shapes: Mapping[str, Float]) -> list[Any]:
    """Values one after the other as arrays of these names' shapes."""
    ends = np.cumsum([shapes[name].size for name in names])
    parts = np.split(values, ends[:-1]) if names else []
    return [part.reshape(shapes[name].shape) for part, name in zip(parts, names, strict=True)]
