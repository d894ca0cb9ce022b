"""Shared small data sets."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from common.data.cases import LesionImage
from common.data.synthetic import synthetic_lesion_images

_REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def images() -> list[LesionImage]:
    """Some hundred made-up images of 60 lesions."""
    return synthetic_lesion_images(60, seed=7)


@pytest.fixture(scope="session")
def ham10000() -> Path:
    """The folder of real images, where this machine has one."""
    default = _REPOSITORY / ".." / "shared" / "data" / "ham10000"
    folder = Path(os.environ.get("FEDQANA_HAM10000", default))
    if not folder.is_dir():
        pytest.skip(f"no HAM10000 at {folder} (set FEDQANA_HAM10000)")
    return folder


@pytest.fixture
def table() -> Callable[..., list[LesionImage]]:
    """Build images without files from (lesion, label, source) rows."""

    def build(rows: list[tuple[str, str, str]]) -> list[LesionImage]:
        return [
            LesionImage(f"{i:04d}", lesion, label, source, f"{i:04d}.png", bytes)
            for i, (lesion, label, source) in enumerate(rows)
        ]

    return build
