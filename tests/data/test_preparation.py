import io
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.classes import HAM10000_CLASSES, ClassMap
from common.data.cases import LesionImage
from common.data.preparation import Crop, centre_crop, decode, prepare_cases, whole_frame
from common.errors import DataUnreadable, StorageFull, UnknownLabel


def encoded(picture: Image.Image, kind: str = "PNG", **settings: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **settings)
    return stream.getvalue()


def image_of(content: bytes, location: str = "clinic/x.jpg") -> LesionImage:
    return LesionImage("x", "L", "nv", "", location, lambda: content)


def counted(images: list[LesionImage], reads: list[str]) -> list[LesionImage]:
    def read(image: LesionImage) -> bytes:
        reads.append(image.image_id)
        return image.read()

    return [replace(image, read=partial(read, image)) for image in images]


def test_arrays(images: list[LesionImage]) -> None:
    cases = prepare_cases(images[:5], HAM10000_CLASSES, size=48)
    assert cases.images.shape == (5, 48, 48, 3)
    assert cases.images.dtype == np.uint8
    assert [HAM10000_CLASSES.codes[i] for i in cases.labels] == [i.label for i in images[:5]]
    assert cases.case_ids == tuple(i.image_id for i in images[:5])
    assert cases.lesion_ids == tuple(i.lesion_id for i in images[:5])


def test_no_images() -> None:
    assert prepare_cases([], HAM10000_CLASSES).images.shape == (0, 64, 64, 3)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK"])
def test_any_size_and_mode(mode: str) -> None:
    picture = Image.new("RGB", (200, 150), (200, 100, 50))
    picture = picture.quantize() if mode == "P" else picture.convert(mode)
    content = encoded(picture, "JPEG" if mode == "CMYK" else "PNG")
    cases = prepare_cases([image_of(content)], HAM10000_CLASSES)
    expected = np.asarray(picture.convert("RGB"))[0, 0].astype(int)
    assert np.abs(cases.images[0].astype(int) - expected).max() <= 3


def test_crops() -> None:
    picture = Image.new("RGB", (300, 100), (255, 0, 0))
    picture.paste((0, 0, 255), (100, 0, 200, 100))
    image = image_of(encoded(picture))
    centre = prepare_cases([image], HAM10000_CLASSES, crop=centre_crop).images[0]
    whole = prepare_cases([image], HAM10000_CLASSES, crop=whole_frame).images[0]
    assert (centre == (0, 0, 255)).all()
    assert (whole[:, 5] == (255, 0, 0)).all() and (whole[:, 32] == (0, 0, 255)).all()


def test_exif_orientation() -> None:
    picture = Image.new("RGB", (64, 64), (0, 0, 0))
    picture.paste((255, 255, 255), (0, 0, 64, 32))
    exif = Image.Exif()
    exif[0x0112] = 3  # stored upside down
    content = encoded(picture, "JPEG", exif=exif, quality=95)
    upright = prepare_cases([image_of(content)], HAM10000_CLASSES).images[0]
    assert upright[:24].max() < 30 and upright[40:].min() > 220


def test_cache_is_used_and_depends_on_everything(images: list[LesionImage], tmp_path: Path) -> None:
    few = images[:4]
    first = prepare_cases(few, HAM10000_CLASSES, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    reads: list[str] = []
    again = prepare_cases(counted(few, reads), HAM10000_CLASSES, cache=tmp_path)
    assert len(reads) == 4, "hashed once and not decoded"
    assert (again.images == first.images).all() and list(tmp_path.iterdir()) == [file]

    other_content = replace(few[0], read=images[9].read)
    reordered = ClassMap(HAM10000_CLASSES.codes[::-1])
    renamed = Crop("other", centre_crop.apply)
    prepare_cases([other_content, *few[1:]], HAM10000_CLASSES, cache=tmp_path)
    prepare_cases(few, reordered, cache=tmp_path)
    prepare_cases(few, HAM10000_CLASSES, cache=tmp_path, size=32)
    prepare_cases(few, HAM10000_CLASSES, cache=tmp_path, crop=renamed)
    prepare_cases(few[:3], HAM10000_CLASSES, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "text", "other"])
def test_damaged_cache_is_made_anew(images: list[LesionImage], tmp_path: Path, damage: str) -> None:
    first = prepare_cases(images[:4], HAM10000_CLASSES, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    middle = len(whole) // 2
    if damage == "other":
        np.savez(file, images=np.zeros((4, 9, 9, 3), np.uint8))
    else:
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        file.write_bytes(
            {"flipped": flipped, "cut": whole[:middle], "empty": b"", "text": b"hello"}[damage]
        )
    again = prepare_cases(images[:4], HAM10000_CLASSES, cache=tmp_path)
    assert (again.images == first.images).all()
    assert file.read_bytes() == whole


def test_nothing_is_stored_without_a_cache(
    images: list[LesionImage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prepare_cases(images[:2], HAM10000_CLASSES)
    assert not list(tmp_path.iterdir())


def test_cache_that_cannot_be_written(images: list[LesionImage]) -> None:
    with pytest.raises(StorageFull):
        prepare_cases(images[:1], HAM10000_CLASSES, cache=Path("/sys/nowhere"))


@pytest.mark.parametrize("fault", ["cut", "text", "empty", "gif"])
def test_corrupt_file_is_named(fault: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    jpeg = encoded(Image.fromarray(noise), "JPEG")
    gif = encoded(Image.new("RGB", (64, 64)), "GIF")
    content = {"cut": jpeg[: len(jpeg) // 2], "text": b"<html>", "empty": b"", "gif": gif}[fault]
    with pytest.raises(DataUnreadable, match=r"clinic/x\.jpg") as caught:
        prepare_cases([image_of(content)], HAM10000_CLASSES)
    assert "\n" not in str(caught.value)


def test_label_outside_the_map(images: list[LesionImage]) -> None:
    with pytest.raises(UnknownLabel):
        prepare_cases([replace(images[0], label="mol")], HAM10000_CLASSES)


def test_sixteen_bit_grey_keeps_its_shades() -> None:
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (64, 1))
    shown = np.asarray(decode(image_of(encoded(Image.fromarray(ramp)))))
    assert shown.shape == (64, 64, 3)
    np.testing.assert_allclose(shown[0, :, 0], np.linspace(0, 255, 64), atol=1)


def test_pillow_warns_nobody(recwarn: pytest.WarningsRecorder) -> None:
    palette = Image.new("P", (64, 64), 1)
    palette.putpalette([0, 0, 0, 200, 10, 20])
    shown = decode(image_of(encoded(palette, transparency=b"\x10\xff")))
    assert shown.getpixel((3, 3)) == (200, 10, 20)
    assert not recwarn.list


def test_a_picture_too_large_to_decode_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.data.preparation.MOST_PIXELS", 64 * 64 - 1)
    with pytest.raises(DataUnreadable, match="64 x 64 pixels are too many"):
        decode(image_of(encoded(Image.new("RGB", (64, 64)))))
