"""A picture as it came over the wire, prepared exactly as the site's own cases were."""

import threading

import numpy as np
from numpy.typing import NDArray

from common.classes import ClassMap
from common.data.cases import LesionImage
from common.data.preparation import Cropping, prepare_cases

_ANY = "picture"
_AT_ONCE = threading.BoundedSemaphore(2)
"""A picture of many pixels takes a gigabyte while it is decoded."""


def prepared(content: bytes, size: int, crop: Cropping) -> NDArray[np.uint8]:
    """An encoded picture, cropped, as uint8 (size, size, 3); DataUnreadable where it is none."""
    picture = LesionImage(
        image_id="",
        lesion_id="",
        label=_ANY,
        source="",
        location="the picture that was sent",
        read=lambda: content,
    )
    with _AT_ONCE:
        cases = prepare_cases([picture], ClassMap((_ANY,)), size=size, crop=crop)
    return np.asarray(cases.images[0])
