"""`fedqana data crops`: how well each crop finds the lesions, and what it looks like."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from common.classes import ClassMap
from common.commands.options import classes_option, saliency_weights_option
from common.commands.progress import finding_lesions
from common.errors import DataNotFound, SettingsError

if TYPE_CHECKING:
    from common.data.cases import LesionImage
    from common.saliency.crops import SaliencyCrop
    from common.saliency.masks import LesionMasks
    from common.saliency.sheet import SheetCase


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@classes_option
@click.option(
    "--sheet",
    type=click.Path(dir_okay=False, path_type=Path),
    help="HTML file to write, with frames, boxes and crops of some images.",
)
@click.option(
    "--each", type=click.IntRange(1), default=2, show_default=True,
    help="Images of each class and source on the sheet.",
)  # fmt: skip
@saliency_weights_option
@click.option(
    "--cache", type=click.Path(file_okay=False, path_type=Path),
    help="Folder for boxes, so that they are found once.",
)  # fmt: skip
@click.option(
    "--threads", type=click.IntRange(1), default=1, show_default=True,
    help="Processor threads of the network.",
)  # fmt: skip
@click.option(
    "--grad-cam/--no-grad-cam", default=True, show_default=True,
    help="Measure Grad-CAM too; it takes as long again.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
def crops(
    folder: Path, classes: ClassMap, sheet: Path | None, each: int, saliency_weights: str,
    cache: Path | None, threads: int, grad_cam: bool, as_json: bool,
) -> None:  # fmt: skip
    """Measure the crops of FOLDER's images by its lesion masks.

    Masks are those of HAM10000_segmentations_lesion.zip in FOLDER, or PNG files named
    <image id>_segmentation.png in a folder 'masks' there. Without masks there is the sheet only.
    """
    _use_threads(threads)
    from common.data.readers import read_lesion_images
    from common.saliency.choice import CropChoice, CropName, crop_of
    from common.saliency.crops import SaliencyCrop
    from common.saliency.masks import lesion_masks
    from common.saliency.sheet import sample_for_sheet, write_sheet

    images = read_lesion_images(folder, classes)
    try:
        masks = lesion_masks(folder)
    except DataNotFound:
        if sheet is None:
            raise
        masks = None
    names: list[CropName] = ["grad-cam", "saliency"] if grad_cam else ["saliency"]
    networks: dict[str, SaliencyCrop] = {}
    for name in names:
        crop = crop_of(CropChoice(name, saliency_weights), cache=cache)
        assert isinstance(crop, SaliencyCrop)
        networks[name] = crop
    sample = sample_for_sheet(images, each)
    started = time.perf_counter()
    rows, cases = _found(images if masks else sample, sample, masks, networks)
    summary: dict[str, Any] = {
        "folder": str(folder),
        "images": len(images),
        "networks": {name: crop.name for name, crop in networks.items()},
        "seconds": round(time.perf_counter() - started, 2),
        "crops": rows,
        "sheet": None if sheet is None else str(sheet),
    }
    if sheet is not None:
        write_sheet(cases, sheet, f"Crops of {folder.resolve().name}")
    click.echo(json.dumps(summary, indent=2) if as_json else _in_words(summary))


def _use_threads(threads: int) -> None:
    """Before TensorFlow starts its own, of which it would take one for each processor."""
    from common.keras_setup import tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError as error:  # it is at work in this process already
        raise SettingsError("--threads: call this in a process of its own") from error


def _found(
    images: list["LesionImage"],
    sample: list["LesionImage"],
    masks: "LesionMasks | None",
    networks: "dict[str, SaliencyCrop]",
) -> tuple[list[dict[str, Any]], list["SheetCase"]]:
    """The table's rows, none without masks, and the sheet's cases."""
    from dataclasses import replace

    from common.saliency.quality import boxed, measure_crops
    from common.saliency.sheet import SheetCase

    with finding_lesions() as tell:
        last = list(networks)[-1]
        told = {**networks, last: replace(networks[last], tell=tell)}
        if masks is None:
            found = zip(sample, boxed(sample, told), strict=True)
            return [], [SheetCase(image, boxes) for image, (_, boxes) in found]
        wanted = {image.image_id for image in sample}
        qualities, boxes = measure_crops(images, masks, told, wanted)
    cases = [SheetCase(image, boxes[image.image_id]) for image in sample]
    return [quality.to_json() for quality in qualities], cases


def _in_words(summary: dict[str, Any]) -> str:
    lines, widths = [], (14, 12, 12, 12)
    if summary["crops"]:
        lines += [
            f"{'':<12}{'share of the mask kept':>26}{'IoU with its box':>24}",
            f"{'crop':<12}{'mean':>14}{'5 %':>12}{'mean':>12}{'5 %':>12}",
        ]
        for row in summary["crops"]:
            values = [row[k][v] for k in ("kept", "iou") for v in ("mean", "quantile_05")]
            told = "".join(f"{value:>{w}.3f}" for value, w in zip(values, widths, strict=True))
            lines.append(f"{row['crop']:<12}{told}")
        lines += ["", "mask: the square around the lesion's mask, with a tenth of margin"]
    else:
        lines.append("no lesion masks, so nothing is measured")
    names = ", ".join(summary["networks"].values())
    lines.append(f"{summary['images']} images, {summary['seconds']:.1f} s ({names})")
    if summary["sheet"]:
        lines.append(f"sheet: {summary['sheet']} (images of patients: keep it as these are kept)")
    return "\n".join(lines)
