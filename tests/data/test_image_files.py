"""Which file a table's row means, and which files of a folder are images of cases."""

import os
import tempfile
import zipfile
from pathlib import Path

import pytest

from common.classes import HAM10000_CLASSES
from common.data.check import check_folder
from common.data.image_files import files_below, index_of
from common.data.readers import read_lesion_images
from common.errors import DataNotFound, DataUnreadable


def write(folder: Path, *files: str) -> None:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(file.encode())


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ("left/1.jpg", "data/left/1.jpg"),
        ("./left/1.jpg", "data/left/1.jpg"),
        ("LEFT/1.JPG", "data/left/1.jpg"),
        ("2.jpg", "data/left/deep/2.jpg"),
        ("2.jpeg", "data/left/deep/2.jpg"),
        ("2", "data/left/deep/2.jpg"),
        ("deep/2", "data/left/deep/2.jpg"),
        ("3.png", "data/right/3.png"),
        ("3.jpg", "data/right/3.jpg"),
        ("3", None),  # two files of this name
        ("1.jpg", None),
        ("right/2.jpg", None),  # another folder's file is another patient's
        ("elsewhere/2.jpg", None),
        ("/left/1.jpg", None),
        ("../data/right/3.png", "data/right/3.png"),
        ("4.png", None),  # there is only 4.jpg
        ("", None),
        ("x" * 400 + ".jpg", None),
        ("a\0.jpg", None),
    ],
)
def test_what_a_row_names(named: str, found: str | None, tmp_path: Path) -> None:
    data = tmp_path / "data"
    write(data, "left/1.jpg", "right/1.jpg", "left/deep/2.jpg", "right/3.png", "right/3.jpg")
    write(data, "4.jpg")
    file = index_of(data, sorted(data.iterdir())).find(named)
    assert (file.location if file else None) == found
    if file is not None:
        assert file.read().decode() == file.location.removeprefix("data/")


def test_an_absolute_path_is_taken_as_it_is(tmp_path: Path) -> None:
    write(tmp_path, "data/1.jpg", "archive/1.jpg")
    index = index_of(tmp_path / "data", sorted((tmp_path / "data").iterdir()))
    elsewhere = index.find(str(tmp_path / "archive" / "1.jpg"))
    assert elsewhere is not None and elsewhere.read() == b"archive/1.jpg"
    assert elsewhere.location == str(tmp_path / "archive" / "1.jpg")


def test_an_absent_file_is_never_replaced_by_one_of_the_same_name(tmp_path: Path) -> None:
    write(tmp_path, "right/1.jpg")
    (tmp_path / "list.csv").write_text("path,dx\nleft/1.jpg,mel\nright/1.jpg,nv\n")
    with pytest.raises(DataNotFound, match=r"1 of 2 images .*'left/1.jpg' in line 2"):
        read_lesion_images(tmp_path, HAM10000_CLASSES)


def test_one_file_in_two_rows_is_refused_and_reported(tmp_path: Path) -> None:
    write(tmp_path, "1.jpg", "2.jpg")
    (tmp_path / "list.csv").write_text("path,dx\n1.jpg,mel\n./1.jpg,nv\n2.jpg,nv\n")
    with pytest.raises(DataUnreadable, match=r"file '.*/1.jpg' is listed 2 times"):
        read_lesion_images(tmp_path, HAM10000_CLASSES)
    problems = check_folder(tmp_path, HAM10000_CLASSES).problems
    assert any("files listed more than once" in line for line in problems)


def test_what_other_programs_leave_behind_is_no_case(tmp_path: Path) -> None:
    write(tmp_path, "nv/a.jpg", "nv/deep/b.png", "nv/.thumbnails/a.jpg", "nv/@eaDir/a.jpg")
    write(tmp_path, "nv/__MACOSX/a.jpg", "nv/._a.jpg", "nv/note.txt")
    found = [p.relative_to(tmp_path).as_posix() for p in files_below(tmp_path)]
    assert found == ["nv/a.jpg", "nv/note.txt", "nv/deep/b.png"]


def test_links_are_followed_once(tmp_path: Path) -> None:
    write(tmp_path, "store/a.jpg", "data/nv/b.jpg")
    folder = tmp_path / "data" / "nv"
    (folder / "more").symlink_to(tmp_path / "store")
    (folder / "back").symlink_to(folder)
    (folder / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    names = [p.name for p in files_below(folder)]
    assert sorted(names) == ["a.jpg", "b.jpg", "gone.jpg"]
    images = read_lesion_images(tmp_path / "data", HAM10000_CLASSES)
    with pytest.raises(DataNotFound, match=r"gone\.jpg"):
        [image.read() for image in images]


def test_a_closed_folder_is_not_skipped() -> None:
    as_root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:  # pytest's own folder is closed to others
        folder = Path(name)
        folder.chmod(0o755)
        write(folder, "nv/a.jpg", "nv/inner/b.jpg")
        (folder / "nv" / "inner").chmod(0o700 if as_root else 0)
        if as_root:
            os.seteuid(65534)  # nothing is closed to root
        try:
            with pytest.raises(DataUnreadable, match=r"cannot list .*inner: Permission denied"):
                read_lesion_images(folder, HAM10000_CLASSES)
        finally:
            if as_root:
                os.seteuid(0)
            (folder / "nv" / "inner").chmod(0o700)


def test_images_of_other_formats_are_noted(tmp_path: Path) -> None:
    write(tmp_path, "nv/a.jpg", "mel/b.tif", "mel/c.jpg")
    notes = check_folder(tmp_path, HAM10000_CLASSES).notes
    assert "images that are neither JPEG, PNG nor DICOM are left out: mel/b.tif" in notes


def test_a_stray_table_does_not_hide_class_folders(tmp_path: Path) -> None:
    write(tmp_path, "nv/a.jpg", "mel/b.jpg")
    (tmp_path / "prices.csv").write_bytes("Stück;Preis €\n".encode("cp1252"))
    (tmp_path / "~$list.csv").write_bytes(b"\0\0")
    assert len(read_lesion_images(tmp_path, HAM10000_CLASSES)) == 2


def test_a_table_without_the_columns_is_named(tmp_path: Path) -> None:
    write(tmp_path, "images/a.jpg")
    (tmp_path / "list.csv").write_text("bild,diagnose\na.jpg,nv\n")
    with pytest.raises(DataUnreadable, match=r"list.csv needs an image column"):
        read_lesion_images(tmp_path, HAM10000_CLASSES)


def test_empty_lines_before_the_header(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg")
    (tmp_path / "list.csv").write_text("\n\npath,dx\na.jpg,nv\na.jpg\n")
    with pytest.raises(DataUnreadable, match="line 5: 1 values under 2 columns, separated by com"):
        read_lesion_images(tmp_path, HAM10000_CLASSES)


def test_a_class_may_be_empty_where_a_model_is_judged(tmp_path: Path) -> None:
    write(tmp_path, "nv/a.jpg")
    (tmp_path / "mel").mkdir()
    assert len(read_lesion_images(tmp_path, HAM10000_CLASSES, for_training=False)) == 1


def test_an_archive_of_a_future_version(tmp_path: Path) -> None:
    (tmp_path / "HAM10000_metadata.csv").write_text("image_id,lesion_id,dx\na,L,nv\n")
    path = tmp_path / "HAM10000_images_part_1.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jpg", b"x")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 6] = 160  # the version needed to extract
    path.write_bytes(content)
    with pytest.raises(DataUnreadable, match="copy or download it again"):
        read_lesion_images(tmp_path, HAM10000_CLASSES)
