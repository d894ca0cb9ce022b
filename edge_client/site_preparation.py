"""From a folder of labelled images to a site's cases: whole lesions to train, validate and test on.

A lesion's part is a matter of chance but decided once: it does not change when images are added
later, or nothing that was held back could be trusted any more.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from common.classes import ClassMap
from common.data.cases import Cases, LesionImage
from common.data.preparation import Cropping, centre_crop, prepare_cases
from common.data.readers import read_lesion_images
from common.data.splits import FRACTIONS, split_by_lesion
from common.errors import DataUnfit
from common.saliency.choice import CENTRE, CropChoice, Tell, crop_of
from common.seeds import derive_seed
from edge_client.case_journal import CaseJournal
from edge_client.site import PARTS, SiteData, SiteFolder


def prepared_parts(
    name: str,
    images: list[LesionImage],
    classes: ClassMap,
    seed: int,
    size: int,
    cache: Path | None = None,
    crop: Cropping = centre_crop,
) -> dict[str, Cases]:
    """A site's lesions split into training, validation and test cases."""
    split = split_by_lesion(images, FRACTIONS, derive_seed(seed, "split", name))
    return {
        part: prepare_cases(members, classes, size=size, crop=crop, cache=cache)
        for part, members in split.items()
    }


def prepare_site(
    home: Path,
    name: str,
    data: Path,
    classes: ClassMap,
    size: int,
    choice: CropChoice | None = None,
    tell: Tell = lambda done, total: None,
) -> SiteData:
    """Read a hospital's images and write them into its home as cases.

    Where cases are there already, their lesions keep their parts; lesions that were taught to the
    chip are trained on; only other new lesions are split. Without a ``choice`` images are cropped
    as before; ``tell`` is told how many lesions a saliency crop has found. Its boxes are kept in
    ``home/boxes``.

    Raises
    ------
    SettingsError
        As `crop_of`.
    DataNotFound, DataUnreadable, UnknownLabel
        As `fedqana data check` says in detail.
    DataUnfit
        Nothing to train on, nothing to judge by, or lesions that were there before are missing.
    StorageFull
    """
    images = read_lesion_images(data, classes)
    folder = SiteFolder(home)
    before = folder.read() if (home / "site.json").exists() else None
    journal = CaseJournal(folder.state / "cases.journal", read_only=True)
    taught = {case.lesion_id for case in journal.facts()}
    choice = choice or (before.crop if before else CENTRE)
    crop = crop_of(choice, data=data, cache=home / "boxes", tell=tell)
    parts = _keeping_parts(name, images, classes, size, before, taught, crop)
    for part in PARTS:
        if not len(parts[part]):
            raise DataUnfit(
                f"{data} gives no {part} case: a class needs at least three lesions to be split; "
                "add images, and see 'fedqana data check'"
            )
    none = parts["train"].subset(np.zeros(0, np.int64))
    site = SiteData(
        name=name,
        classes=classes,
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
        arrivals=none,
        arrival_rounds=np.zeros(0, np.int64),
        crop=replace(choice, made=crop.name),
    )
    folder.write(site)
    return site


def _keeping_parts(
    name: str,
    images: list[LesionImage],
    classes: ClassMap,
    size: int,
    before: SiteData | None,
    taught: set[str],
    crop: Cropping,
) -> dict[str, Cases]:
    if before is None:
        return prepared_parts(name, images, classes, 0, size, crop=crop)
    part_of = {lesion: part for part in PARTS for lesion in getattr(before, part).lesion_ids}
    missing = part_of.keys() - {image.lesion_id for image in images}
    if missing:
        raise DataUnfit(
            f"{len(missing)} of {len(part_of)} lesions that this site has are not in the folder; "
            "give the whole folder, old images and new ones (lesions that are held back would be "
            "forgotten otherwise)"
        )
    part_of |= dict.fromkeys(taught - part_of.keys(), "train")
    new = [image for image in images if image.lesion_id not in part_of]
    split = split_by_lesion(new, FRACTIONS, derive_seed(0, "split", name)) if new else {}
    return {
        part: prepare_cases(
            [i for i in images if part_of.get(i.lesion_id) == part] + list(split.get(part, ())),
            classes,
            size=size,
            crop=crop,
        )
        for part in PARTS
    }
