import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.data.synthetic import synthetic_lesion_images
from common.data.whitening import fit_whitening


def noise(n: int, size: int = 8, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


@given(st.integers(2, 60), st.integers(1, 5), st.integers(0, 2**31))
@settings(max_examples=40)
def test_all_components_give_the_images_back(n: int, size: int, seed: int) -> None:
    images = noise(n, size, seed)
    space, points = fit_whitening(images, 4096, 0)
    assert space.components == points.shape[1] == min(n - 1, size * size * 3)
    assert points.dtype == np.float32
    assert (space.images(points) == images).all()
    np.testing.assert_allclose(space.points(images), points, atol=0.05)


def test_points_are_white() -> None:
    _, points = fit_whitening(noise(300, 4), 20, 0)
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(points.T), np.eye(20), atol=1e-3)


@given(st.integers(3, 100), st.integers(0, 2**31))
@settings(max_examples=20)
def test_with_all_components_all_images_are_equally_far_apart(n: int, seed: int) -> None:
    _, points = fit_whitening(noise(n, 8, seed), 4096, 0)
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)[~np.eye(n, dtype=bool)]
    np.testing.assert_allclose(apart, np.sqrt(2 * (n - 1)), rtol=1e-3)


def test_fewer_components_are_the_nearest_plane() -> None:
    images = noise(50)
    errors = []
    for components in (5, 20, 40, 49):
        space, points = fit_whitening(images, components, 0)
        assert space.components == components
        errors.append(np.abs(space.images(points).astype(int) - images).mean())
    assert errors == sorted(errors, reverse=True) and errors[-1] == 0 < errors[-2]


@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the share of a variance that is none
def test_equal_images_stay_what_they_are(n: int) -> None:
    images = np.repeat(noise(1), n, axis=0)
    space, points = fit_whitening(images, 4096, 0)
    assert (space.images(points) == images).all()


def test_images_far_outside_are_clipped() -> None:
    space, points = fit_whitening(noise(10), 4096, 0)
    far = space.images(1000 * points)
    assert far.min() == 0 and far.max() == 255


def test_more_images_than_are_done_at_a_time() -> None:
    images = noise(600, 2)
    space, points = fit_whitening(images, 4096, 0)
    assert (space.images(points) == images).all()
    assert space.points(images[:0]).shape == (0, 12)


def test_pictures_of_lesions() -> None:
    from common.classes import HAM10000_CLASSES
    from common.data.preparation import prepare_cases

    cases = prepare_cases(synthetic_lesion_images(60, seed=2), HAM10000_CLASSES)
    space, points = fit_whitening(cases.images, 4096, 0)
    assert (space.images(points) == cases.images).all()
