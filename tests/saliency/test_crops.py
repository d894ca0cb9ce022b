import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.classes import HAM10000_CLASSES
from common.data.cases import LesionImage
from common.data.preparation import centre_crop, prepare_cases, whole_frame
from common.errors import DataNotFound, DataUnreadable, SettingsError
from common.saliency.box_cache import BoxCache
from common.saliency.boxes import Box
from common.saliency.choice import CropChoice, crop_of, crop_of_new_pictures
from common.saliency.crops import MaskCrop, SaliencyCrop
from common.saliency.masks import box_of_mask, lesion_masks
from common.saliency.quality import measure_crops
from common.saliency.sheet import SheetCase, sample_for_sheet, write_sheet
from tests.saliency.lesions import lesion, lesion_images, write_masks


@pytest.fixture(scope="module")
def images() -> list[LesionImage]:
    return lesion_images(6)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Box]]:
    """Boxes that were not in a cache, in order."""
    found: list[Box] = []
    real = SaliencyCrop.box

    def box(crop: SaliencyCrop, picture: Image.Image) -> Box:
        found.append(real(crop, picture))
        return found[-1]

    monkeypatch.setattr(SaliencyCrop, "box", box)
    yield found


def test_the_lesion_fills_more_of_the_crop(images: list[LesionImage]) -> None:
    def dark(crop: str) -> float:
        cases = prepare_cases(images, HAM10000_CLASSES, crop=crop_of(CropChoice(crop)))  # type: ignore[arg-type]
        return float((cases.images[..., 0] < 150).mean())

    assert dark("saliency") > 1.3 * dark("centre") > 1.3 * dark("whole")


def test_boxes_are_found_once(
    images: list[LesionImage], tmp_path: Path, counted: list[Box]
) -> None:
    told: list[tuple[int, int]] = []
    crop = crop_of(
        CropChoice("saliency"), cache=tmp_path, tell=lambda done, total: told.append((done, total))
    )
    first = prepare_cases(images, HAM10000_CLASSES, crop=crop, cache=tmp_path)
    assert len(counted) == len(images) and told == [(i, 6) for i in range(1, 7)]
    again = prepare_cases(images, HAM10000_CLASSES, crop=crop, cache=tmp_path)
    other = prepare_cases(images, HAM10000_CLASSES, crop=crop, cache=tmp_path, size=32)
    assert len(counted) == len(images) and other.images.shape == (6, 32, 32, 3)
    assert (again.images == first.images).all()
    one = prepare_cases(images[3:4], HAM10000_CLASSES, crop=crop_of(CropChoice("saliency")))
    assert (one.images[0] == first.images[3]).all(), "alone as among others"


@pytest.mark.parametrize("damage", ["cut", "empty", "a box", "another crop", "no dict"])
def test_a_damaged_cache_is_noticed(tmp_path: Path, damage: str) -> None:
    cache = BoxCache(tmp_path, "crop")
    assert not cache.was_damaged
    cache.put("a" * 64, Box(1, 2, 30, 40))
    cache.save()
    (file,) = tmp_path.iterdir()
    assert BoxCache(tmp_path, "crop").get("a" * 64) == Box(1, 2, 30, 40)
    assert BoxCache(tmp_path, "other").get("a" * 64) is None
    text = file.read_text()
    document = json.loads(text)
    document["crop"] = "other"
    file.write_text(
        {
            "cut": text[:-4],
            "empty": "",
            "a box": text.replace("30", "31"),
            "another crop": json.dumps(document),
            "no dict": "[]",
        }[damage]
    )
    damaged = BoxCache(tmp_path, "crop")
    assert damaged.was_damaged and damaged.get("a" * 64) is None
    damaged.put("b" * 64, Box(0, 0, 5, 5))
    damaged.save()
    assert not BoxCache(tmp_path, "crop").was_damaged


def test_two_that_write_one_cache_keep_both(tmp_path: Path) -> None:
    one, other = BoxCache(tmp_path, "crop"), BoxCache(tmp_path, "crop")
    one.put("a", Box(0, 0, 1, 1))
    other.put("b", Box(0, 0, 2, 2))
    one.save()
    other.save()
    both = BoxCache(tmp_path, "crop")
    assert both.get("a") and both.get("b")


def test_a_box_of_another_picture_size_is_found_anew(
    images: list[LesionImage], tmp_path: Path, counted: list[Box]
) -> None:
    crop = crop_of(CropChoice("saliency"), cache=tmp_path)
    assert isinstance(crop, SaliencyCrop)
    from common.files import sha256_of

    cache = BoxCache(tmp_path, crop.name)
    cache.put(sha256_of(images[0].read()), Box(0, 0, 9000, 9000))
    cache.save()
    next(crop.pictures(images[:1]))
    assert len(counted) == 1


def test_choices(tmp_path: Path) -> None:
    assert crop_of(CropChoice()) is centre_crop and crop_of(CropChoice("whole")) is whole_frame
    with pytest.raises(SettingsError, match="leave it out"):
        crop_of(CropChoice("centre", weights="x.h5"))
    with pytest.raises(SettingsError, match="needs a data folder"):
        crop_of(CropChoice("mask"))
    with pytest.raises(DataNotFound, match="no lesion masks"):
        crop_of(CropChoice("mask"), data=tmp_path)
    with pytest.raises(SettingsError, match="new pictures do not have"):
        crop_of_new_pictures(CropChoice("mask"))
    with pytest.raises(SettingsError, match="client prepare --data"):
        crop_of_new_pictures(CropChoice("saliency", made="contrast-lite0-0-rule0"))
    assert crop_of_new_pictures(CropChoice("centre", made="centre-square")) is centre_crop


@pytest.mark.parametrize("zipped", [True, False])
def test_masks(images: list[LesionImage], tmp_path: Path, zipped: bool) -> None:
    write_masks(images, tmp_path, zipped)
    masks = lesion_masks(tmp_path)
    mask = masks.of(images[0], (200, 150))
    assert mask.shape == (150, 200)
    x, y, radius = lesion(0)
    assert box_of_mask(mask) == Box(x - radius, y - radius, x + radius + 1, y + radius + 1)
    assert box_of_mask(masks.of(images[0], (400, 300))).left == pytest.approx(
        2 * (x - radius), abs=1
    )
    crop = crop_of(CropChoice("mask"), data=tmp_path)
    assert isinstance(crop, MaskCrop)
    cases = prepare_cases(images, HAM10000_CLASSES, crop=crop)
    assert (cases.images[:, 32, 32, 0] < 150).all()


def test_bad_masks(images: list[LesionImage], tmp_path: Path) -> None:
    write_masks(images[1:3], tmp_path, zipped=False)
    folder = tmp_path / "masks"
    masks = lesion_masks(tmp_path)
    with pytest.raises(DataNotFound, match="no lesion mask for"):
        masks.of(images[0], (200, 150))
    (folder / f"{images[1].image_id}_segmentation.png").write_bytes(b"no")
    Image.new("L", (200, 150)).save(folder / f"{images[2].image_id}_segmentation.png")
    for image, why in ((images[1], "not a readable mask"), (images[2], "marks nothing")):
        with pytest.raises(DataUnreadable, match=why):
            masks.of(image, (200, 150))


def test_measures_and_sheet(images: list[LesionImage], tmp_path: Path) -> None:
    write_masks(images, tmp_path, zipped=True)
    crop = crop_of(CropChoice("saliency"))
    assert isinstance(crop, SaliencyCrop)
    sample = sample_for_sheet(images, 1)
    assert len(sample) == len({(i.label, i.source) for i in images})
    found, boxes = measure_crops(
        images, lesion_masks(tmp_path), {"saliency": crop}, {i.image_id for i in sample}
    )
    by_name = {quality.crop: quality for quality in found}
    assert list(by_name) == ["whole", "centre", "saliency", "mask"]
    assert (by_name["whole"].kept == 1).all() and (by_name["mask"].kept == 1).all()
    assert by_name["mask"].iou.mean() > by_name["saliency"].iou.mean()
    assert by_name["saliency"].iou.mean() > by_name["centre"].iou.mean()
    assert by_name["centre"].iou.mean() > by_name["whole"].iou.mean()
    sheet = tmp_path / "sheet.html"
    write_sheet([SheetCase(i, boxes[i.image_id]) for i in sample], sheet, "A <b> title")
    text = sheet.read_text()
    assert "A &lt;b&gt; title" in text and "http" not in text
    assert text.count("<figure>") == len(sample) and sheet.stat().st_mode & 0o077 == 0


def test_sample_is_even() -> None:
    images = [LesionImage(f"{i:03d}", "L", "nv", "a", "", bytes) for i in range(100)]
    chosen = [int(image.image_id) for image in sample_for_sheet(images[::-1], 4)]
    assert chosen == [12, 37, 62, 87]
    assert len(sample_for_sheet(images[:2], 4)) == 2


def test_png_of_the_lesions_is_as_drawn() -> None:
    picture = Image.open(io.BytesIO(lesion_images(1)[0].read()))
    x, y, _ = lesion(0)
    assert np.asarray(picture)[y, x, 0] < 150
