"""Random views of training images: symmetries of the square, luminance, contrast; no hue."""

import math

import numpy as np
from numpy.typing import NDArray

LUMINANCE = (0.88, 1.12)
"""Range of the factor on all three channels: +-12 %."""
CONTRAST = (0.85, 1.15)
"""Range of the factor on the distance from the image's own mean value."""


def augment(images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """One random view of each image.

    Every image gets one of the eight symmetries of the square (flips and quarter turns), then
    luminance and contrast drawn uniformly from `LUMINANCE` and `CONTRAST`. Both are one straight
    line for all three channels, so hue stays the same except where a value leaves 0..255. These
    are QANA's own augmentations (arXiv 2507.15958); hue is left out as colour is diagnostic.

    Parameters
    ----------
    images : uint8 array, shape (n, size, size, 3)
    rng : np.random.Generator

    Returns
    -------
    uint8 array, shape (n, size, size, 3)
        A new array.
    """
    turned = turn(images, rng.integers(8, size=len(images)))
    luminance = rng.uniform(*LUMINANCE, size=len(images))
    contrast = rng.uniform(*CONTRAST, size=len(images))
    return relight(turned, luminance, contrast)


def turn(images: NDArray[np.uint8], symmetries: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Apply to each image one symmetry of the square.

    Parameters
    ----------
    images : uint8 array, shape (n, size, size, 3)
    symmetries : int64 array, shape (n,)
        0 to 3: quarter turns; 4 to 7: the same after a flip from left to right.

    Returns
    -------
    uint8 array, shape (n, size, size, 3)
    """
    turned = np.empty_like(images)
    for symmetry in range(8):
        chosen = np.flatnonzero(symmetries == symmetry)
        group = images[chosen]
        if symmetry >= 4:
            group = group[:, :, ::-1]
        turned[chosen] = np.rot90(group, symmetry % 4, axes=(1, 2))
    return turned


def relight(
    images: NDArray[np.uint8], luminance: NDArray[np.float64], contrast: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Change each image's luminance and contrast: luminance * (mean + contrast * (x - mean)).

    Parameters
    ----------
    images : uint8 array, shape (n, size, size, 3)
    luminance, contrast : float64 arrays, shape (n,)
        Factors; 1 changes nothing.

    Returns
    -------
    uint8 array, shape (n, size, size, 3)
        Rounded, and clipped to 0..255.
    """
    pixels = images.reshape(len(images), math.prod(images.shape[1:]))
    means = pixels.mean(axis=1, dtype=np.float32).astype(np.float64)
    values = np.arange(256)
    lines = luminance[:, None] * (means[:, None] + contrast[:, None] * (values - means[:, None]))
    tables = np.clip(np.rint(lines), 0, 255).astype(np.uint8)
    relit = np.empty_like(pixels)
    # A table of 256 values per image is several times faster than arithmetic on its pixels.
    for table, source, target in zip(tables, pixels, relit, strict=True):
        np.take(table, source, out=target, mode="clip")
    return relit.reshape(images.shape)
