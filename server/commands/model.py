"""`fedqana model`: what a model version is, and how good it is on any labelled folder."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from common.commands.options import saliency_weights_option
from server.commands.options import database_option, json_option, out_option
from server.commands.pretrain import pretrain

if TYPE_CHECKING:
    from common.saliency.choice import CropName
    from server.model_evaluation import Backend

_BACKENDS = ("float", "quantized", "akida")  # of server.model_evaluation, too slow to import here
_CROPS = ("centre", "whole", "saliency", "grad-cam", "mask")  # of common.saliency.choice, likewise


@click.group()
def model() -> None:
    """Describe and evaluate model versions; make the weights that runs start from.

    MODEL is a bundle's folder, or RUN:VERSION: a run's id, a unique beginning of one or "latest",
    and a version's number or "latest".
    """


model.add_command(pretrain)


@model.command()
@click.argument("model")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Folder of labelled images to count events on.  [default: what the run's sites counted]",
)
@out_option
@database_option
@json_option
def describe(model: str, data: Path | None, out: Path, database: str | None, as_json: bool) -> None:
    """Print a model's card, its cost on the Akida chips, its layers and its metrics."""
    from server.commands.model_tables import description, print_description
    from server.model_lookup import find_model

    found = find_model(model, out, database)
    bundle = found.load()
    counted = None
    if data is not None:
        from server.model_evaluation import events_on

        counted = events_on(bundle, data)
    told = description(found, bundle, counted)
    if as_json:
        click.echo(json.dumps(told, indent=2))
    else:
        print_description(told)


@model.command()
@click.argument("model")
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of labelled images, in any layout that 'fedqana data check' accepts.",
)
@click.option(
    "--validation",
    type=click.Path(path_type=Path),
    help="Folder of labelled images on which the temperature is fitted.  [default: the other "
    "lesions of DATA, for each fifth of them]",
)
@click.option(
    "--backend",
    type=click.Choice(_BACKENDS),
    default="akida",
    show_default=True,
    help="The float network, the quantized one, or the Akida program.",
)
@click.option(
    "--agreement",
    is_flag=True,
    help="With --backend akida: also count equal spikes and predictions of the program and the "
    "quantized network.",
)
@click.option(
    "--all-symmetries/--one-view",
    default=None,
    help="Judge the mean of the scores over the eight symmetries of each image (quarter turns and "
    "flips), which takes eight times as long, or those of the image alone.  [default: as the run "
    "that made the version asked its sites to answer]",
)
@click.option(
    "--skip-unknown", is_flag=True, help="Leave out images of classes the model does not have."
)
@click.option(
    "--crop",
    type=click.Choice(_CROPS),
    help="What of each image the network sees.  [default: as the model was trained]",
)
@saliency_weights_option
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder in which prepared images are kept.  [default: they are not kept]",
)
@out_option
@database_option
@json_option
def evaluate(
    model: str,
    data: Path,
    validation: Path | None,
    backend: "Backend",
    agreement: bool,
    all_symmetries: bool | None,
    skip_unknown: bool,
    crop: "CropName | None",
    saliency_weights: str,
    cache: Path | None,
    out: Path,
    database: str | None,
    as_json: bool,
) -> None:
    """Evaluate a model on labelled images: metrics, confusion matrix, calibration, referral."""
    if agreement and backend != "akida":
        raise click.UsageError("--agreement compares the Akida program: use --backend akida")
    from rich.console import Console
    from rich.progress import Progress

    from server.model_lookup import find_model

    bundle = find_model(model, out, database).load()

    from common.saliency.choice import CENTRE, CropChoice, crop_of
    from server.model_evaluation import evaluate_bundle, read_folder

    card = bundle.card
    if all_symmetries is None:
        all_symmetries = card.all_symmetries
    choice = CropChoice(crop or card.crop or CENTRE.name, saliency_weights)
    cropping = crop_of(choice, data=data, cache=cache)
    folder = read_folder(data, card.class_map(), skip_unknown)
    fitted_on = None
    if validation is not None:
        fitted_on = read_folder(validation, card.class_map(), skip_unknown)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        images = len(folder.images) + (len(fitted_on.images) if fitted_on else 0)
        task = progress.add_task("evaluating", total=images)
        result = evaluate_bundle(
            bundle,
            folder,
            backend,
            validation=fitted_on,
            with_agreement=agreement,
            all_symmetries=all_symmetries,
            crop=cropping,
            cache=cache,
            advance=lambda images: progress.advance(task, images),
        )
    told = {
        "model": f"{card.run}:{card.version}",
        "data": str(data),
        "images": len(folder.images),
        "skipped": folder.skipped,
        "all_symmetries": all_symmetries,
        "crop": choice.name,
        **result.to_json(),
    }
    if as_json:
        click.echo(json.dumps(told, indent=2))
    else:
        from server.commands.model_tables import print_evaluation

        print_evaluation(told)
