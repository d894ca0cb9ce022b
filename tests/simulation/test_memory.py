"""Memory of a run over many rounds."""

from pathlib import Path

from tests.memory_trial import resident_by_round


def test_memory_does_not_grow_from_round_to_round(tmp_path: Path) -> None:
    resident = resident_by_round(tmp_path, 10)
    assert resident[10] - resident[3] < 30
