"""What of a site's own data the local service needs."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.data.preparation import Cropping, centre_crop
from common.saliency.choice import crop_of_new_pictures
from edge_client.site import SiteData


@dataclass(frozen=True)
class SiteFacts:
    """A site's class map, and what programs are judged by, of which nothing is learned.

    Parameters
    ----------
    codes : tuple of str
        The class map.
    lesions : frozenset of str
        Lesions that are held back.
    pictures : frozenset of bytes
        SHA-256 of the pixels of their images: they are known again under another name.
    crop : Cropping
        How the site's cases were cropped, and pictures are that come later.
    """

    codes: tuple[str, ...]
    lesions: frozenset[str]
    pictures: frozenset[bytes]
    crop: Cropping = centre_crop

    @classmethod
    def of(cls, data: SiteData) -> "SiteFacts":
        """From a site's folder; raises as `crop_of_new_pictures`."""
        images = (*data.validation.images, *data.test.images)
        return cls(
            data.classes.codes,
            data.held_back,
            frozenset(map(_hash_of, images)),
            crop_of_new_pictures(data.crop),
        )

    def are_held_back(self, lesion_id: str, image: NDArray[np.uint8]) -> bool:
        """Whether a lesion, or the prepared image of one, judges programs."""
        return lesion_id in self.lesions or _hash_of(image) in self.pictures


def _hash_of(image: NDArray[np.uint8]) -> bytes:
    return hashlib.sha256(image.tobytes()).digest()
