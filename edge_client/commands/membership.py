"""`fedqana client join|start`: take part in a coordinator's rounds."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from common.commands.options import classes_option, saliency_weights_option
from common.commands.progress import finding_lesions
from edge_client.commands.options import home_option, json_option

if TYPE_CHECKING:
    from common.classes import ClassMap
    from common.saliency.choice import CropName


@click.command()
@click.argument("enrolment_file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--data",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The hospital's labelled images (see docs/data.md).",
)
@classes_option
@click.option("--image-size", default=64, show_default=True, help="Pixels the network looks at.")
@click.option(
    "--crop",
    default="centre",
    show_default=True,
    type=click.Choice(["centre", "whole", "saliency", "grad-cam"]),
    help="What of each image the network sees: the centred square, the whole frame, or where a "
    "frozen ImageNet network finds the lesion. As at the other sites; it stays so.",
)
@saliency_weights_option
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=9094,
    show_default=True,
    help="Of Flower's node, on loopback.",
)
@home_option
@json_option
def join(
    enrolment_file: Path,
    data: Path,
    classes: "ClassMap",
    image_size: int,
    crop: "CropName",
    saliency_weights: str,
    port: int,
    home: Path,
    as_json: bool,
) -> None:
    """Join the coordinator that wrote ENROLMENT_FILE.

    Prepares the images, makes the site's key on the spot (it never leaves this machine) and
    registers its public part. The coordinator then approves the site.
    """
    from common.saliency.choice import CropChoice
    from edge_client.joining import join as join_coordinator

    choice = CropChoice(crop, saliency_weights)
    with finding_lesions() as tell:
        reply, site = join_coordinator(
            home.resolve(), enrolment_file, data, classes, image_size, port, choice, tell
        )
    if as_json:
        values = {
            "site": site.name,
            "state": reply.state,
            "fingerprint": reply.fingerprint,
            "cases": {p: len(getattr(site, p)) for p in ("train", "validation", "test")},
            "home": str(home),
        }
        click.echo(json.dumps(values, indent=2))
        return
    click.echo(
        f"{site.name}: {len(site.train)} cases to train on, {len(site.validation)} to validate, "
        f"{len(site.test)} to test"
    )
    click.echo(f"registered with key {reply.fingerprint} ({reply.state})")
    click.echo(
        "tell the coordinator this key's fingerprint; after the approval: fedqana client start"
    )


@click.command()
@click.argument("enrolment_file", type=click.Path(dir_okay=False, path_type=Path))
@home_option
@json_option
def rejoin(enrolment_file: Path, home: Path, as_json: bool) -> None:
    """Register this site anew, with a new key.

    For a key that is to be changed, or a server that was set up anew. Cases, model versions,
    policy and audit log stay. Stop the client before, start it after the approval.
    """
    from edge_client.joining import join_again

    reply = join_again(home.resolve(), enrolment_file)
    if as_json:
        values = {"state": reply.state, "fingerprint": reply.fingerprint, "home": str(home)}
        click.echo(json.dumps(values, indent=2))
        return
    click.echo(f"registered with key {reply.fingerprint} ({reply.state})")
    click.echo(
        "tell the coordinator this key's fingerprint; after the approval: fedqana client start"
    )


@click.command()
@click.option(
    "--data",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="All of the hospital's labelled images, old and new.",
)
@click.option(
    "--add-class",
    "added",
    multiple=True,
    metavar="CODE",
    help="A class that the site's images have from now on; once for each.",
)
@home_option
@json_option
def prepare(data: Path, added: tuple[str, ...], home: Path, as_json: bool) -> None:
    """Read the hospital's images again, e.g. because there are more; the next run uses them.

    Lesions keep the part they were in; only new lesions are split. Stop the client before, and do
    it between two runs: a run takes a site by the cases that it had at the beginning.
    """
    from common.classes import ClassMap
    from common.errors import DataUnfit
    from common.file_lock import file_lock
    from edge_client.client_folder import ClientFolder
    from edge_client.site import SiteFolder
    from edge_client.site_preparation import prepare_site

    home = home.resolve()
    name = ClientFolder(home).config().site
    before = SiteFolder(home).read()
    size = before.train.images.shape[1]
    known = before.classes.codes
    if twice := set(added) & set(known):
        raise DataUnfit(f"the site has the class {min(twice)!r} already; leave it out")
    classes = ClassMap((*known, *added)) if added else before.classes
    busy = "the edge client is running; stop it first"
    with file_lock(home / "client.lock", 0.0, busy), finding_lesions() as tell:
        site = prepare_site(home, name, data, classes, size, tell=tell)
    counts = {part: len(getattr(site, part)) for part in ("train", "validation", "test")}
    if as_json:
        click.echo(json.dumps({"site": name, "cases": counts}, indent=2))
        return
    told = ", ".join(f"{count} to {part}" for part, count in counts.items())
    click.echo(f"{name}: {told}")


@click.command()
@home_option
def start(home: Path) -> None:
    """Run the edge client until it is stopped (Ctrl-C or SIGTERM).

    Logs go to standard error and to logs/client.log as JSON lines.
    """
    from edge_client.start import start as run

    run(home.resolve())
