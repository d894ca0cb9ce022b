"""Records of benchmarks: one small JSON file for each row and seed, made once, never overwritten.

A record holds numbers and settings only.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from common import __version__
from common.data.cases import Cases
from common.errors import SettingsError
from common.files import sha256_of, write_atomically
from common.qana.initial import RANDOM

Record = dict[str, Any]

_PACKAGES = ("tensorflow", "tf_keras", "akida", "numpy")


def software_versions(*more: str) -> dict[str, str]:
    """Of FedQANA and of what computes, and of ``more`` packages; "absent" for those that are."""
    found = {"fedqana": __version__}
    for package in (*_PACKAGES, *more):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def read_record_of(file: Path, keys: Collection[str], benchmark: str) -> Record:
    """A record of a benchmark that has all ``keys``; SettingsError for a file that is none."""
    try:
        record = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"{file} cannot be read ({error}); remove it to make it again"
        ) from error
    if not isinstance(record, dict) or not all(key in record for key in keys):
        raise SettingsError(f"{file} is no record of the {benchmark} benchmark; move it elsewhere")
    record["settings"].setdefault("initial", RANDOM)  # all did before there was a choice
    return record


def records_in(out: Path, read: Callable[[Path], Record], command: str) -> list[Record]:
    """Every record in a folder, by file name; SettingsError where ``command`` made none yet."""
    found = [read(file) for file in sorted(out.glob("*-seed-*.json"))]
    if not found:
        raise SettingsError(f"{out} has no record; make some with '{command} --out {out}'")
    return found


def check_same(noted: Mapping[str, Any], wanted: Mapping[str, Any], file: Path) -> None:
    """SettingsError naming the first setting that differs in ``noted``, read from ``file``."""
    now = json.loads(json.dumps(wanted))  # tuples as the lists that they are in the file
    for name in sorted({*noted, *now}):
        if noted.get(name) != now.get(name):
            raise SettingsError(
                f"{file} was made with {name} {noted.get(name)!r}, not {now.get(name)!r}; give the "
                "same options, another --out, or remove that file"
            )


def store_record(file: Path, record: Record) -> None:
    """Store a record, whole or not at all; StorageFull where that cannot be done."""
    write_atomically(file, (json.dumps(record, indent=2) + "\n").encode())


def size_of(lesion_ids: Sequence[str]) -> dict[str, int]:
    """How many lesions and images there are, from the images' lesion ids."""
    return {"lesions": len(set(lesion_ids)), "images": len(lesion_ids)}


def hash_of_cases(cases: Cases) -> str:
    """SHA-256 over the ids and labels of images: equal ones make numbers comparable."""
    pairs = sorted(zip(cases.case_ids, cases.labels.tolist(), strict=True))
    return sha256_of(json.dumps(pairs).encode())
