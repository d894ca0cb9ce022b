"""Images as points in a whitened principal component space, and back."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_AT_A_TIME = 256


@dataclass(frozen=True)
class Whitening:
    """A fitted principal component analysis of flattened images.

    Parameters
    ----------
    analysis : sklearn.decomposition.PCA
        Of pixels in 0..1, float32, with ``whiten=True``.
    shape : tuple of int
        Of one image: (size, size, 3).
    """

    analysis: Any
    shape: tuple[int, ...]

    @property
    def components(self) -> int:
        """Number of coordinates of a point."""
        return int(self.analysis.n_components_)

    def points(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Coordinates of ``images`` (uint8, shape (n, size, size, 3)): float32, (n, components).

        Of those that it was fitted to, each coordinate has mean 0 and variance 1.
        """
        parts = [
            self.analysis.transform(_pixels(images[first : first + _AT_A_TIME]))
            for first in range(0, len(images), _AT_A_TIME)
        ]
        return np.concatenate([np.zeros((0, self.components), np.float32), *parts])

    def images(self, points: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Images at ``points`` (float32, (n, components)): uint8, shape (n, size, size, 3).

        Rounded to whole values and clipped to 0..255.
        """
        images = np.empty((len(points), *self.shape), np.uint8)
        for first in range(0, len(points), _AT_A_TIME):
            pixels = self.analysis.inverse_transform(points[first : first + _AT_A_TIME])
            whole = np.clip(np.rint(255 * pixels), 0, 255).astype(np.uint8)
            images[first : first + _AT_A_TIME] = whole.reshape(-1, *self.shape)
        return images


def fit_whitening(
    images: NDArray[np.uint8], components: int, seed: int
) -> tuple[Whitening, NDArray[np.float32]]:
    """Fit a whitened principal component analysis to images.

    n images span at most n - 1 directions. With all of these, whitening puts every two of
    the images at the same distance, sqrt(2 (n - 1)): whitened coordinates are the left singular
    vectors of the centred data times sqrt(n - 1), and the rows of an orthogonal basis of all
    vectors of sum 0 are the corners of a regular simplex. "Nearest" means something only with
    clearly fewer components than images.

    Parameters
    ----------
    images : uint8 array, shape (n, size, size, 3)
        At least two.
    components : int
        At most so many; fewer where there are fewer images or pixels: min(components, n - 1,
        size * size * 3).
    seed : int
        Below 2**32. Of scikit-learn's ``random_state``; the solver chosen here draws nothing.

    Returns
    -------
    Whitening
    float32 array, shape (n, components)
        Coordinates of ``images``.
    """
    from sklearn.decomposition import PCA

    pixels = _pixels(images)
    analysis = PCA(
        n_components=min(components, len(pixels) - 1, pixels.shape[1]),
        whiten=True,
        svd_solver="full",  # the fastest where nearly all components are kept: docs/data.md
        random_state=seed,
        copy=False,
    )
    points = analysis.fit_transform(pixels)
    return Whitening(analysis, images.shape[1:]), points


def _pixels(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Flat rows of values in 0..1; half the memory and time of float64, 0.02 of 255 exact."""
    rows = images.reshape(len(images), -1).astype(np.float32)
    rows /= 255
    return rows
