import csv
import multiprocessing
import os
import zipfile
from pathlib import Path

import pytest

from common.classes import HAM10000_CLASSES, ClassMap
from common.data.cases import LesionImage
from common.data.readers import read_lesion_images
from common.data.synthetic import write_case_list, write_class_folders
from common.errors import DataNotFound, DataUnreadable, UnknownLabel

HEADER = ["image_id", "lesion_id", "dx", "dx_type", "age", "sex", "localization", "dataset"]


def write_ham10000(
    folder: Path,
    images: list[LesionImage],
    *,
    table: str = "HAM10000_metadata.csv",
    separator: str = ",",
    parts: tuple[str, str] = ("HAM10000_images_part_1", "HAM10000_images_part_2"),
    zipped: bool = False,
) -> None:
    rows = [
        [i.image_id, i.lesion_id, i.label, "histo", "50.0", "male", "back", i.source]
        for i in images
    ]
    with (folder / table).open("w", newline="") as stream:
        csv.writer(stream, delimiter=separator, quoting=csv.QUOTE_NONNUMERIC).writerows(
            [HEADER, *rows]
        )
    for number, part in enumerate(parts):
        own = images[number::2]
        if zipped:
            with zipfile.ZipFile(folder / f"{part}.zip", "w") as archive:
                for image in own:
                    archive.writestr(f"{part}/{image.image_id}.jpg", image.read())
        else:
            (folder / part).mkdir()
            for image in own:
                (folder / part / f"{image.image_id}.jpg").write_bytes(image.read())


def same(read: list[LesionImage], written: list[LesionImage]) -> bool:
    def key(i: LesionImage) -> tuple[str, str, str, str, bytes]:
        return (i.image_id, i.lesion_id, i.label, i.source, i.read())

    return [key(i) for i in read] == sorted(key(i) for i in written)


def write_list(folder: Path, text: str, files: tuple[str, ...] = (), content: bytes = b"") -> None:
    (folder / "list.csv").write_text(text)
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content or file.encode())


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("table", "separator"),
    [("HAM10000_metadata.csv", ","), ("HAM10000_metadata.tab", "\t"), ("ham10000_metadata", "\t")],
)
def test_ham10000_as_downloaded(
    tmp_path: Path, images: list[LesionImage], table: str, separator: str, zipped: bool
) -> None:
    write_ham10000(tmp_path, images[:9], table=table, separator=separator, zipped=zipped)
    assert same(read_lesion_images(tmp_path, HAM10000_CLASSES), images[:9])


def test_ham10000_with_masks_and_a_second_copy_in_other_casing(
    tmp_path: Path, images: list[LesionImage]
) -> None:
    write_ham10000(tmp_path, images[:6])
    for folder in ("ham10000_images_part_1", "HAM10000_segmentations_lesion"):
        (tmp_path / folder).mkdir()
    for image in images[:6:2]:
        copy = tmp_path / "ham10000_images_part_1" / f"{image.image_id}.jpg"
        copy.write_bytes(image.read())
    mask = tmp_path / "HAM10000_segmentations_lesion" / f"{images[0].image_id}.png"
    mask.write_bytes(b"a mask")
    assert same(read_lesion_images(tmp_path, HAM10000_CLASSES), images[:6])


def test_a_picture_of_a_case_is_not_the_case(tmp_path: Path, images: list[LesionImage]) -> None:
    write_ham10000(tmp_path, images)
    overlay = tmp_path / "GradCAM" / f"{images[0].image_id}.png"
    overlay.parent.mkdir()
    overlay.write_bytes(b"x")
    with pytest.raises(DataNotFound, match="or there under two paths"):
        read_lesion_images(tmp_path, HAM10000_CLASSES)


def test_ham10000_with_one_part_missing(tmp_path: Path, images: list[LesionImage]) -> None:
    write_ham10000(tmp_path, images[:8], zipped=True)
    (tmp_path / "HAM10000_images_part_2.zip").unlink()
    with pytest.raises(DataNotFound, match=rf"4 of 8 images.*{images[1].image_id}.*line 3"):
        read_lesion_images(tmp_path, HAM10000_CLASSES)


def test_broken_archive_is_named(tmp_path: Path, images: list[LesionImage]) -> None:
    write_ham10000(tmp_path, images[:4], zipped=True)
    (tmp_path / "HAM10000_images_part_1.zip").write_bytes(b"PK but not really")
    with pytest.raises(DataUnreadable, match=r"HAM10000_images_part_1\.zip"):
        read_lesion_images(tmp_path, HAM10000_CLASSES)


def test_damaged_member_is_named(tmp_path: Path, images: list[LesionImage]) -> None:
    write_ham10000(tmp_path, images[:2], zipped=True)
    archive = tmp_path / "HAM10000_images_part_1.zip"
    content = bytearray(archive.read_bytes())
    content[1000] ^= 0xFF
    archive.write_bytes(bytes(content))
    read = read_lesion_images(tmp_path, HAM10000_CLASSES)
    with pytest.raises(DataUnreadable, match=images[0].image_id):
        read[0].read()


def _read_all(images: list[LesionImage]) -> list[bytes]:
    return [image.read() for image in images]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_archives_are_read_from_other_processes(
    tmp_path: Path, images: list[LesionImage], start: str
) -> None:
    write_ham10000(tmp_path, images[:12], zipped=True)
    read = read_lesion_images(tmp_path, HAM10000_CLASSES)
    here = _read_all(read)
    with multiprocessing.get_context(start).Pool(3) as pool:
        assert pool.map(_read_all, [read] * 6, chunksize=1) == [here] * 6


def test_class_folders(tmp_path: Path, images: list[LesionImage]) -> None:
    write_class_folders(images[:9], tmp_path)
    read = read_lesion_images(tmp_path, HAM10000_CLASSES)
    assert sorted((i.label, i.read()) for i in read) == sorted(
        (i.label, i.read()) for i in images[:9]
    )
    assert all(i.lesion_id == i.image_id for i in read)
    assert [i.image_id for i in read] == sorted(i.image_id for i in read)


def test_case_list_beside_class_folders_has_the_lesions(
    tmp_path: Path, images: list[LesionImage]
) -> None:
    write_class_folders(images[:9], tmp_path)
    write_case_list(images[:9], tmp_path)
    assert same(read_lesion_images(tmp_path, HAM10000_CLASSES), images[:9])


@pytest.mark.parametrize("column", ["image", "image_path", "path", "file", "filename", "image_id"])
@pytest.mark.parametrize("label", ["dx", "diagnosis", "label", "class"])
def test_own_list_columns(tmp_path: Path, column: str, label: str) -> None:
    text = f"\ufeff{column.upper()};{label.title()};lesion_id\nsub\\a.PNG; NV ;L1\nb.jpg;Mel;L1\n"
    write_list(tmp_path, text, ("sub/a.PNG", "b.jpg"))
    read = read_lesion_images(tmp_path, HAM10000_CLASSES)
    assert [(i.label, i.lesion_id, i.read()) for i in sorted(read, key=lambda i: i.label)] == [
        ("mel", "L1", b"b.jpg"),
        ("nv", "L1", b"sub/a.PNG"),
    ]


def test_files_are_found_by_name_without_suffix(tmp_path: Path) -> None:
    write_list(tmp_path, "image_id,dx\na,nv\nb,mel\n", ("x/a.jpg", "y/b.png"))
    read = read_lesion_images(tmp_path, HAM10000_CLASSES)
    assert [(i.image_id, i.read()) for i in read] == [("a", b"x/a.jpg"), ("b", b"y/b.png")]


def test_patient_is_wider_than_lesion(tmp_path: Path) -> None:
    rows = ["a.png,nv,L1,P1", "b.png,nv,L2,P1", "c.png,mel,L2,", "d.png,mel,L3,", "e.png,mel,,"]
    text = "\n".join(["image,dx,lesion_id,patient_id", *rows])
    write_list(tmp_path, text, tuple(r.split(",")[0] for r in rows))
    units = [i.lesion_id for i in read_lesion_images(tmp_path, HAM10000_CLASSES)]
    assert units == ["P1", "P1", "P1", "L3", "e.png"]


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("image,dx\na.png,nv\nb.png,mol\n", UnknownLabel, r"list\.csv line 3: label 'mol'.*akiec"),
        ("image,dx\na.png,\n", UnknownLabel, r"line 2: label ''"),
        ("image,dx\nzz.png,nv\nyy.png,nv\n", DataNotFound, r"2 of 2 images.*'zz\.png' in line 2"),
        ("image,dx\n", DataNotFound, "lists no images"),
        ("", DataUnreadable, "needs an image column"),
        ("image,colour\na.png,nv\n", DataUnreadable, "diagnosis column"),
        ("image,dx\na.png,nv,x\n", DataUnreadable, "line 2: 3 values under 2 columns"),
        ('image,dx\na.png,"nv\n', DataUnreadable, "is not CSV"),
        ("image,dx\n,nv\n", DataUnreadable, "line 2: no image is named"),
        ("image,dx\na.png,nv\na.png,nv\n", DataUnreadable, "'a.png' is listed 2 times"),
    ],
)
def test_faulty_lists(tmp_path: Path, text: str, error: type[Exception], says: str) -> None:
    write_list(tmp_path, text, ("a.png", "b.png"))
    with pytest.raises(error, match=says) as caught:
        read_lesion_images(tmp_path, HAM10000_CLASSES)
    assert "\n" not in str(caught.value)


def test_list_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes("image,dx\nä.png,nv\n".encode("latin-1"))
    with pytest.raises(DataUnreadable, match="UTF-8"):
        read_lesion_images(tmp_path, HAM10000_CLASSES)


def test_two_lists(tmp_path: Path) -> None:
    write_list(tmp_path, "image,dx\na.png,nv\n", ("a.png",))
    (tmp_path / "other.csv").write_text("image,dx\na.png,mel\n")
    with pytest.raises(DataUnreadable, match=r"list\.csv, other\.csv"):
        read_lesion_images(tmp_path, HAM10000_CLASSES)
    (tmp_path / "other.csv").write_text("age,sex\n40,f\n")
    assert len(read_lesion_images(tmp_path, HAM10000_CLASSES)) == 1


def test_lenient_reading_keeps_what_the_check_reports(tmp_path: Path) -> None:
    write_list(tmp_path, "image,dx\na.png,mol\na.png,nv\nzz.png,nv\n", ("a.png",))
    read = read_lesion_images(tmp_path, HAM10000_CLASSES, strict=False)
    assert [(i.image_id, i.label) for i in read] == [
        ("a.png", "mol"),
        ("a.png", "nv"),
        ("zz.png", "nv"),
    ]
    with pytest.raises(DataNotFound, match="zz"):
        read[2].read()


def test_wrong_folders(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.png").write_bytes(b"x")
    (tmp_path / "nv").mkdir()
    for folder in (tmp_path / "absent", tmp_path / "notes", tmp_path / "nv"):
        with pytest.raises(DataNotFound, match=r"HAM10000.*csv.*one folder"):
            read_lesion_images(folder, HAM10000_CLASSES)


def test_folder_of_no_class(tmp_path: Path, images: list[LesionImage]) -> None:
    write_class_folders(images[:30], tmp_path)
    with pytest.raises(UnknownLabel, match=r"nv: label 'nv' is not one of mel, bcc"):
        read_lesion_images(tmp_path, ClassMap(("mel", "bcc", "bkl", "akiec", "df", "vasc")))


def test_reading_does_not_depend_on_the_working_folder(
    tmp_path: Path, images: list[LesionImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_class_folders(images[:3], tmp_path)
    monkeypatch.chdir(tmp_path)
    read = read_lesion_images(Path(), HAM10000_CLASSES)
    monkeypatch.chdir(os.sep)
    assert all(image.read() for image in read)


def test_real_ham10000(ham10000: Path) -> None:
    read = read_lesion_images(ham10000, HAM10000_CLASSES)
    assert len(read) > 1000
    assert {i.label for i in read} == set(HAM10000_CLASSES.codes)
    assert {i.source for i in read} == {
        "rosendahl",
        "vidir_modern",
        "vidir_molemax",
        "vienna_dias",
    }
    assert read[0].read().startswith(b"\xff\xd8")
