"""Made-up hospitals' images, once for all tests of this folder."""

from pathlib import Path

import pytest

from tests.deployment.hospitals import fedqana


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of images of three sites."""
    root = tmp_path_factory.mktemp("data")
    folders = {}
    for seed, site in enumerate(("north", "south", "west")):
        folders[site] = root / site
        fedqana("data", "make", str(folders[site]), "--lesions", "60", "--seed", str(seed))
    return folders
