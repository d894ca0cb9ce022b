import io
import json
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from common.classes import HAM10000_CLASSES
from common.commands.data import data
from common.data.cases import LesionImage
from common.data.check import check_folder
from common.data.readers import read_lesion_images
from common.data.synthetic import (
    synthetic_lesion_images,
    write_case_list,
    write_class_folders,
)
from common.errors import DataNotFound, DataUnfit, SettingsError


def png(colour: tuple[int, int, int], size: int = 64) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def sound(tmp_path: Path, images: list[LesionImage]) -> Path:
    write_class_folders(images, tmp_path)
    write_case_list(images, tmp_path)
    return tmp_path


def add(folder: Path, *rows: str, **files: bytes) -> None:
    """Append lines to the case list and write files; columns: path, id, lesion, label, source."""
    with (folder / "cases.csv").open("a") as stream:
        stream.writelines(f"{row},\n" for row in rows)
    for name, content in files.items():
        (folder / f"{name}.png").write_bytes(content)


def test_sound_data(sound: Path, images: list[LesionImage]) -> None:
    report = check_folder(sound, HAM10000_CLASSES)
    assert report.problems == []
    assert (report.images, report.lesions) == (len(images), 60)
    for code in HAM10000_CLASSES.codes:
        own = [i for i in images if i.label == code]
        assert report.classes[code].images == len(own)
        assert report.classes[code].lesions == len({i.lesion_id for i in own})


def test_every_fault_at_once(sound: Path, images: list[LesionImage]) -> None:
    twin = images[0].read()
    add(
        sound,
        "broken.png,broken,B,nv",
        "absent.png,absent,A,nv",
        "tiny.png,tiny,T,nv",
        "mol.png,mol,M,mol",
        "twin.png,twin,other lesion," + images[0].label,
        "one.png,one,S,nv",
        "two.png,two,S,nv",
        "three.png,three,S,mel",
        "black.png,black,K,nv",
        "black2.png,black,K2,nv",
        broken=b"not a png",
        tiny=png((180, 120, 100), 20),
        mol=png((181, 120, 100)),
        twin=twin,
        one=png((170, 110, 90)),
        two=png((170, 110, 90)),
        three=png((170, 110, 90)),
        black=png((0, 0, 0)),
        black2=png((1, 0, 255)),
    )
    report = check_folder(sound, HAM10000_CLASSES)
    assert sorted(report.unreadable) == ["absent", "broken"]
    assert report.tiny == ["tiny"]
    assert report.unknown_labels == {"mol": 1}
    assert report.repeated_ids == ["black"]
    assert report.lesions_with_several_labels == ["S"]
    assert sorted(map(sorted, report.duplicates)) == sorted(
        [sorted([images[0].image_id, "twin"]), ["one", "three", "two"]]
    )
    assert report.colour_outliers[0] == "black"
    text = "\n".join(report.problems)
    for part in ("broken.png", "absent.png", "20 x 20", "'mol'", "more than once: black"):
        assert part in text
    assert "identical files in different lesions" in text
    assert "identical files with different labels (mel, nv)" in text
    assert "several labels" in "\n".join(report.notes)
    json.dumps(report.as_json())


def test_identical_files_of_one_lesion_are_a_note(sound: Path) -> None:
    add(sound, "a.png,a,L,nv", "b.png,b,L,nv", a=png((170, 110, 90)), b=png((170, 110, 90)))
    report = check_folder(sound, HAM10000_CLASSES)
    assert report.problems == [] and "within a lesion: a = b" in "\n".join(report.notes)


def test_absent_and_single_classes_are_notes(tmp_path: Path) -> None:
    for label, n in (("nv", 3), ("mel", 1)):
        (tmp_path / label).mkdir()
        for i in range(n):
            (tmp_path / label / f"{i}.png").write_bytes(png((150 + i, 100, 80 if n > 1 else 90)))
    report = check_folder(tmp_path, HAM10000_CLASSES)
    assert report.problems == []
    assert "class bcc has no images" in report.notes
    assert any(note.startswith("class mel has a single lesion") for note in report.notes)


def test_one_class_is_not_enough(tmp_path: Path) -> None:
    (tmp_path / "nv").mkdir()
    (tmp_path / "nv" / "a.png").write_bytes(png((150, 100, 80)))
    assert any("at least two" in p for p in check_folder(tmp_path, HAM10000_CLASSES).problems)


def test_command(sound: Path) -> None:
    result = CliRunner().invoke(data, ["check", str(sound)])
    assert result.exit_code == 0 and "Fit for training." in result.output
    result = CliRunner().invoke(data, ["check", str(sound), "--classes", "nv,MEL", "--json"])
    assert isinstance(result.exception, DataUnfit) and result.exception.exit_status == 13
    report = json.loads(result.stdout)
    assert list(report["classes"]) == ["nv", "mel"] and "bcc" in report["unknown_labels"]
    assert report["problems"]


def test_command_on_wrong_folders(tmp_path: Path) -> None:
    result = CliRunner().invoke(data, ["check", str(tmp_path / "absent")])
    assert isinstance(result.exception, DataNotFound)
    assert CliRunner().invoke(data, ["check", str(tmp_path), "--classes", "nv,,a"]).exit_code == 2


def test_make_then_check(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    result = CliRunner().invoke(data, ["make", str(folder), "--lesions", "30", "--json"])
    assert result.exit_code == 0
    made = json.loads(result.output)
    checked = json.loads(CliRunner().invoke(data, ["check", str(folder), "--json"]).stdout)
    assert (checked["images"], checked["lesions"]) == (made["images"], 30)
    assert checked["problems"] == []
    again = CliRunner().invoke(data, ["make", str(folder)])
    assert isinstance(again.exception, SettingsError)


def test_real_ham10000(ham10000: Path) -> None:
    start = time.monotonic()
    report = check_folder(ham10000, HAM10000_CLASSES)
    assert report.problems == []
    assert len(report.colour_outliers) < 0.01 * report.images
    assert time.monotonic() - start < 60
    assert np.sum([c.images for c in report.classes.values()]) == report.images


def test_an_empty_class_folder_is_a_problem(tmp_path: Path) -> None:
    images = synthetic_lesion_images(60, seed=3)
    write_class_folders(images, tmp_path)
    for file in (tmp_path / "df").iterdir():
        file.unlink()
    assert "class folder df holds no image" in check_folder(tmp_path, HAM10000_CLASSES).problems
    with pytest.raises(DataUnfit, match="df holds no image"):
        read_lesion_images(tmp_path, HAM10000_CLASSES)
