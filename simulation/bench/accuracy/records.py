"""Where the accuracy benchmark keeps its records; what a stopped training left is beside them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simulation.bench.records import Record, check_same, read_record_of, records_in, store_record

KEYS = ("row", "seed", "settings", "command", "versions", "backend", "train", "test", "result")
"""What every record has; those that `fedqana bench accuracy run` makes have more."""

_NOTE = "{row}-seed-{seed}"


def stem_of(row: str, seed: int) -> str:
    """Name of the files of a row and seed, without their ends."""
    return _NOTE.format(row=row, seed=seed)


def record_file(out: Path, row: str, seed: int) -> Path:
    """Where a record is."""
    return out / f"{stem_of(row, seed)}.json"


def read_record(file: Path) -> Record:
    """A record; SettingsError for a file that is none."""
    return read_record_of(file, KEYS, "accuracy")


def found_record(out: Path, row: str, seed: int, settings: Mapping[str, Any]) -> Record | None:
    """The record that was made before, None where there is none.

    Raises SettingsError where it was made with other settings.
    """
    file = record_file(out, row, seed)
    if not file.exists():
        return None
    record = read_record(file)
    check_same(record["settings"], settings, file)
    return record


def write_record(out: Path, record: Record) -> Path:
    """Store a record, whole or not at all; StorageFull where that cannot be done."""
    file = record_file(out, record["row"], record["seed"])
    store_record(file, record)
    return file


def all_records(out: Path) -> list[Record]:
    """Every record in a folder, sorted by row and seed; SettingsError where there is none."""
    found = records_in(out, read_record, "fedqana bench accuracy run ROW")
    return sorted(found, key=lambda record: (str(record["row"]), int(record["seed"])))
