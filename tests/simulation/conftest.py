"""What several modules of whole runs compare with."""

from pathlib import Path

import pytest

from tests.support.tiny_run import run_tiny


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two float and one quantized round, not interrupted."""
    return run_tiny(tmp_path_factory.mktemp("runs"), float_rounds=2)
