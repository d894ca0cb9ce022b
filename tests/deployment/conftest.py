"""What the deployments of this folder share: made-up images, and that one runs at a time."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.file_lock import file_lock
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


@pytest.fixture(scope="module", autouse=True)
def alone() -> Iterator[None]:
    """Two deployments at once would make each other too slow for their own limits."""
    lock = Path(tempfile.gettempdir()) / "fedqana-deployment-tests.lock"
    with file_lock(lock, 1800.0, "another test has a deployment under way"):
        yield
