"""Crops that need to know more than a rule: where a frozen network looks, or the lesion's mask."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from common.data.cases import LesionImage
from common.data.preparation import decode
from common.files import sha256_of
from common.saliency.box_cache import BoxCache
from common.saliency.boxes import RULES, Box, box_of_heat, square_around
from common.saliency.choice import Tell
from common.saliency.masks import LesionMasks, box_of_mask

if TYPE_CHECKING:
    from common.saliency.networks import SaliencyNetwork

log = logging.getLogger("fedqana.saliency")

_RULE = 1
"""Counted up whenever `RULES` or `box_of_heat` would give another box for the same heat."""

MASK_MARGIN = 0.1
"""Of a lesion's longer side, left around its mask."""


@dataclass(frozen=True, eq=False)
class SaliencyCrop:
    """The square in which the heat of a frozen network lies.

    Parameters
    ----------
    network : SaliencyNetwork
    cache : Path, optional
        Folder for boxes that were found.
    tell : callable
    """

    network: "SaliencyNetwork"
    cache: Path | None = None
    tell: Tell = lambda done, total: None

    @property
    def name(self) -> str:
        """Names the network, its weights and the rule; part of cache keys."""
        return f"{self.network.key}-rule{_RULE}"

    def pictures(self, images: Sequence[LesionImage]) -> Iterator[Image.Image]:
        """The cropped picture of each image; raises as `boxed`."""
        return (picture.crop(box) for picture, box in self.boxed(images))

    def boxed(self, images: Sequence[LesionImage]) -> Iterator[tuple[Image.Image, Box]]:
        """Each image's whole picture and where it is cropped; raises as `decode`, StorageFull."""
        boxes = BoxCache(self.cache, self.name)
        if boxes.was_damaged:
            log.warning("the boxes kept in %s were damaged; they are found anew", self.cache)
        try:
            for done, image in enumerate(images, start=1):
                content = image.read()
                picture = decode(image, content)
                key = sha256_of(content)
                box = boxes.get(key)
                if box is None or not _fits(box, picture):
                    box = self.box(picture)
                    boxes.put(key, box)
                yield picture, box
                self.tell(done, len(images))
        finally:
            boxes.save()

    def box(self, picture: Image.Image) -> Box:
        """Where an RGB picture is cropped."""
        rule = RULES[self.network.method]
        return box_of_heat(self.network.heat(picture), picture.width, picture.height, rule)


@dataclass(frozen=True, eq=False)
class MaskCrop:
    """The square around a lesion's mask: what any crop could reach at best, for research only."""

    masks: LesionMasks
    name: str = f"mask-{MASK_MARGIN}"

    def pictures(self, images: Sequence[LesionImage]) -> Iterator[Image.Image]:
        """The cropped picture of each image; raises as `decode` and `LesionMasks.of`."""
        for image in images:
            picture = decode(image)
            lesion = box_of_mask(self.masks.of(image, picture.size))
            yield picture.crop(square_around(lesion, picture.width, picture.height, MASK_MARGIN))


def _fits(box: Box, picture: Image.Image) -> bool:
    return box.area > 0 and box.right <= picture.width and box.bottom <= picture.height
