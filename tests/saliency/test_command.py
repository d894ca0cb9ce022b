import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.saliency.lesions import lesion_images, write_masks

_ROOT = Path(__file__).parents[2]


def _run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "simulation.cli", "data", "crops", *arguments]
    return subprocess.run(command, cwd=_ROOT, capture_output=True, text=True)


def _folder(path: Path) -> Path:
    for image in lesion_images(4):
        (path / image.label).mkdir(parents=True, exist_ok=True)
        (path / image.label / image.location).write_bytes(image.read())
    return path


def test_table_cache_and_sheet(tmp_path: Path) -> None:
    data, cache, sheet = _folder(tmp_path / "data"), tmp_path / "cache", tmp_path / "sheet.html"
    write_masks(lesion_images(4), data, zipped=False)
    first = _run(str(data), "--cache", str(cache), "--sheet", str(sheet), "--json")
    assert first.returncode == 0, first.stderr
    found: dict[str, Any] = json.loads(first.stdout)
    assert [row["crop"] for row in found["crops"]] == [
        "whole", "centre", "grad-cam", "saliency", "mask",
    ]  # fmt: skip
    assert found["images"] == 4 and sheet.read_text().count("<figure>") == 4
    boxes = sorted(cache.iterdir())
    assert len(boxes) == 2
    boxes[0].write_text(boxes[0].read_text()[:-9])
    again = _run(str(data), "--cache", str(cache))
    assert again.returncode == 0 and "saliency" in again.stdout
    assert "were damaged" in again.stderr
    assert json.loads(boxes[0].read_text())["boxes"]


def test_without_masks(tmp_path: Path) -> None:
    data, sheet = _folder(tmp_path / "data"), tmp_path / "sheet.html"
    refused = _run(str(data))
    assert refused.returncode == 10 and len(refused.stderr.splitlines()) == 1
    assert "no lesion masks" in refused.stderr
    shown = _run(str(data), "--sheet", str(sheet), "--no-grad-cam")
    assert shown.returncode == 0 and "nothing is measured" in shown.stdout
    assert sheet.read_text().count("<figure>") == 4


@pytest.mark.parametrize("what", ["folder", "weights"])
def test_one_line_where_something_is_absent(tmp_path: Path, what: str) -> None:
    data = _folder(tmp_path / "data")
    write_masks(lesion_images(4), data, zipped=True)
    arguments = [str(data), "--saliency-weights", str(tmp_path / "no.h5")]
    ran = _run(str(tmp_path / "nowhere")) if what == "folder" else _run(*arguments)
    assert ran.returncode == 10 and len(ran.stderr.splitlines()) == 1
