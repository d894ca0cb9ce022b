"""How well crops find lesions, judged by lesion masks."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.data.cases import LesionImage
from common.saliency.boxes import Box, centre_box, square_around
from common.saliency.crops import MASK_MARGIN, SaliencyCrop
from common.saliency.masks import LesionMasks, box_of_mask

LOW = 0.05
"""The quantile that is given beside the mean."""

LESION = "lesion"
"""What the mask's own box is called among the boxes of an image."""


@dataclass(frozen=True)
class CropQuality:
    """What a crop did over a set of images.

    Parameters
    ----------
    crop : str
    kept : float array, shape (n,)
        Share of the mask's pixels inside the crop, 0 to 1.
    iou : float array, shape (n,)
        Intersection over union of the crop's box and the mask's smallest box, 0 to 1.
    """

    crop: str
    kept: NDArray[np.float64]
    iou: NDArray[np.float64]

    def to_json(self) -> dict[str, Any]:
        """Mean, 5 % quantile and number of images as plain JSON values."""
        values: dict[str, Any] = {"crop": self.crop, "images": len(self.kept)}
        for name, found in (("kept", self.kept), ("iou", self.iou)):
            values[name] = {
                "mean": float(found.mean()),
                "quantile_05": float(np.quantile(found, LOW)),
            }
        return values


def boxed(
    images: Sequence[LesionImage], networks: Mapping[str, SaliencyCrop]
) -> Iterator[tuple[tuple[int, int], dict[str, Box]]]:
    """Each image's width and height, and where crops that need no mask cut it, by their name.

    Raises as `SaliencyCrop.boxed`.
    """
    found = zip(*(crop.boxed(images) for crop in networks.values()), strict=True)
    for each in found:
        size = each[0][0].size
        boxes = {"whole": Box(0, 0, *size), "centre": centre_box(*size)}
        yield size, boxes | {name: box for name, (_, box) in zip(networks, each, strict=True)}


def measure_crops(
    images: Sequence[LesionImage],
    masks: LesionMasks,
    networks: Mapping[str, SaliencyCrop],
    keep: Collection[str] = (),
) -> tuple[list[CropQuality], dict[str, dict[str, Box]]]:
    """Measure all crops on images that have masks.

    Parameters
    ----------
    images : sequence of LesionImage
        At least one.
    masks : LesionMasks
    networks : dict of str to SaliencyCrop
        At least one, by its name.
    keep : collection of str
        Ids of the images whose boxes are returned too.

    Returns
    -------
    list of CropQuality, dict of str to dict of str to Box
        One for each of whole, centre, networks and mask; and boxes by image id, then by crop.

    Raises as `SaliencyCrop.boxed` and `LesionMasks.of`.
    """
    kept: dict[str, list[float]] = {}
    iou: dict[str, list[float]] = {}
    boxes_kept: dict[str, dict[str, Box]] = {}
    for image, (size, boxes) in zip(images, boxed(images, networks), strict=True):
        mask = masks.of(image, size)
        lesion = box_of_mask(mask)
        boxes["mask"] = square_around(lesion, *size, MASK_MARGIN)
        for name, found in boxes.items():
            kept.setdefault(name, []).append(share_kept(mask, found))
            iou.setdefault(name, []).append(overlap(found, lesion))
        if image.image_id in keep:
            boxes_kept[image.image_id] = {**boxes, LESION: lesion}
    return [CropQuality(n, np.array(kept[n]), np.array(iou[n])) for n in kept], boxes_kept


def share_kept(mask: NDArray[np.bool_], box: Box) -> float:
    """Share of what a mask (height, width) marks that lies in a box, 0 to 1."""
    return float(mask[box.top : box.bottom, box.left : box.right].sum() / mask.sum())


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    both = Box(
        max(a.left, b.left), max(a.top, b.top), min(a.right, b.right), min(a.bottom, b.bottom)
    )
    return both.area / (a.area + b.area - both.area)
