"""Lesion masks beside a data set: what a crop is measured by, never what a hospital needs.

HAM10000 comes with a mask for every image, ``<image id>_segmentation.png`` in
``HAM10000_segmentations_lesion.zip`` or a folder of that name (Tschandl et al., Nature Medicine
26:1229, 2020).
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from common.data.cases import LesionImage
from common.data.image_files import ImageFile, image_files, in_archive, on_disk
from common.errors import DataNotFound, DataUnreadable
from common.saliency.boxes import Box

_WORDS = ("segmentation", "mask")
_SUFFIXES = ("_segmentation", "_mask", "")
_WHITE = 127


@dataclass(frozen=True)
class LesionMasks:
    """The masks of a data set's images, read one at a time."""

    files: dict[str, ImageFile]

    def of(self, image: LesionImage, size: tuple[int, int]) -> NDArray[np.bool_]:
        """The mask of an image of ``size`` (width, height), bool (height, width).

        A mask of another size is scaled. Raises DataNotFound where there is none, DataUnreadable
        where it is damaged or marks nothing.
        """
        stem = Path(image.image_id).stem.lower()
        found = next((self.files[stem + s] for s in _SUFFIXES if stem + s in self.files), None)
        if found is None:
            raise DataNotFound(f"no lesion mask for {image.location}; the others have one")
        try:
            with Image.open(io.BytesIO(found.read()), formats=("PNG", "JPEG")) as picture:
                grey = picture.convert("L").resize(size, Image.Resampling.NEAREST)
                mask: NDArray[np.bool_] = np.asarray(grey) > _WHITE
        except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
            raise DataUnreadable(
                f"{found.location} is not a readable mask; get it again"
            ) from error
        if not mask.any():
            raise DataUnreadable(f"{found.location} marks nothing; correct or remove it")
        return mask


def lesion_masks(folder: Path) -> LesionMasks:
    """The masks beside the images of ``folder``; DataNotFound where there are none at all."""
    files: dict[str, ImageFile] = {}
    entries = sorted(folder.resolve().iterdir()) if folder.is_dir() else []
    for entry in entries:
        if any(word in entry.name.lower() for word in _WORDS):
            files |= _masks_in(entry)
    if not files:
        raise DataNotFound(
            f"{folder} has no lesion masks; put HAM10000_segmentations_lesion.zip there, or a "
            "folder 'masks' with a PNG <image id>_segmentation.png for every image"
        )
    return LesionMasks(files)


def _masks_in(entry: Path) -> dict[str, ImageFile]:
    if entry.suffix.lower() == ".zip":
        return dict(in_archive(entry))
    if not entry.is_dir():
        return {}
    found = (on_disk(path, entry) for path in image_files(entry))
    return {Path(file.parts[-1]).stem: file for file in found}


def box_of_mask(mask: NDArray[np.bool_]) -> Box:
    """The smallest box, in pixels, around all that a mask marks."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
