"""Which crop a data set or a site chose, and the crop itself made from that."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.data.preparation import Cropping, centre_crop, whole_frame
from common.errors import SettingsError

CropName = Literal["centre", "whole", "saliency", "grad-cam", "mask"]
CROPS: tuple[CropName, ...] = ("centre", "whole", "saliency", "grad-cam", "mask")
SITE_CROPS: tuple[CropName, ...] = ("centre", "whole", "saliency", "grad-cam")
"""What a hospital can choose: new pictures have no mask."""

Tell = Callable[[int, int], None]
"""Told of how many pictures of how many the lesion was found."""


@dataclass(frozen=True)
class CropChoice:
    """A crop by name.

    Parameters
    ----------
    name : str
        One of `CROPS`: the centred square, the whole frame, where a frozen network sees contrast
        or by Grad-CAM (`common.saliency.heat`), or around the lesion's mask.
    weights : str
        File with ResNet-50's weights for "saliency" and "grad-cam"; else EfficientNet-Lite0.
    made : str
        Where cases were prepared with it: the full name of the crop, with network and rule.
    """

    name: CropName = "centre"
    weights: str = ""
    made: str = ""


CENTRE = CropChoice()
"""What is chosen where nothing is said."""


def crop_of(
    choice: CropChoice,
    *,
    data: Path | None = None,
    cache: Path | None = None,
    tell: Tell = lambda done, total: None,
) -> Cropping:
    """The crop that was chosen, ready to use.

    Parameters
    ----------
    choice : CropChoice
    data : Path, optional
        The folder of the images, for "mask".
    cache : Path, optional
        Folder for boxes that were found by a network.
    tell : callable
        Told of the progress of a network.

    Raises
    ------
    SettingsError
        A weights file for another crop; "mask" without a folder; the package with
        EfficientNet-Lite0's weights is not installed; Grad-CAM with weights that cannot do it.
    DataNotFound, DataUnreadable
        The weights or masks are absent or damaged.
    """
    name = choice.name
    if choice.weights and name not in ("saliency", "grad-cam"):
        raise SettingsError(
            f"a weights file goes with the crops 'saliency' and 'grad-cam', not with {name!r}; "
            "leave it out"
        )
    if name == "saliency" or name == "grad-cam":
        # TensorFlow is needed for these only.
        from common.saliency.crops import SaliencyCrop
        from common.saliency.networks import saliency_network

        weights = Path(choice.weights) if choice.weights else None
        network = saliency_network("contrast" if name == "saliency" else "grad-cam", weights)
        return SaliencyCrop(network, cache, tell)
    if name == "mask":
        from common.saliency.crops import MaskCrop
        from common.saliency.masks import lesion_masks

        if data is None:
            raise SettingsError("the mask crop needs a data folder with lesion masks; name one")
        return MaskCrop(lesion_masks(data))
    return whole_frame if name == "whole" else centre_crop


def crop_of_new_pictures(choice: CropChoice) -> Cropping:
    """The crop that a site's cases were made with, for pictures that come later.

    Raises as `crop_of`, and SettingsError where this software would crop otherwise.
    """
    if choice.name == "mask":
        raise SettingsError(
            "this site's cases were cropped by lesion masks, which new pictures do not have; "
            "prepare it with another crop to answer for pictures"
        )
    crop = crop_of(choice)
    if choice.made and crop.name != choice.made:
        raise SettingsError(
            f"this site's cases were cropped by {choice.made}, and new pictures would be by "
            f"{crop.name}; prepare the cases again: fedqana client prepare --data DIR"
        )
    return crop
