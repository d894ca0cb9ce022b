"""`fedqana models`: the versions of the deployed server and which one is in service."""

import json
from pathlib import Path

import click

from server.commands.options import json_option, server_option

_MODEL = click.argument("model", metavar="RUN:VERSION")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def models() -> None:
    """Model versions: list, put into service, go back, export."""


@models.command("list")
@click.option("--run", help="Of this run only: a name, its beginning, or latest.")
@server_option
@json_option
def list_models(run: str | None, server_dir: Path, as_json: bool) -> None:
    """List versions with their lineage and metrics; * marks the promoted one."""
    from dataclasses import asdict

    from server.commands.terminal import print_table
    from server.models import list_versions
    from server.server_settings import ServerFolder

    found = list_versions(ServerFolder(server_dir.resolve()), run)
    if as_json:
        values = [{**asdict(v), "created_at": v.created_at.isoformat()} for v in found]
        click.echo(json.dumps(values, indent=2))
        return
    if not found:
        click.echo("no versions yet; a run makes one after every round")
        return
    rows = [
        [
            f"{'*' if v.promoted else ' '} {v.name}",
            v.parent or "-",
            v.phase,
            f"{v.created_at:%Y-%m-%d %H:%M}",
            "-" if v.balanced_accuracy is None else f"{v.balanced_accuracy:.3f}",
            " ".join(v.fits) or "none",
            "yes" if v.signed else "no",
            f"{v.switched} of {v.sites}",
        ]
        for v in found
    ]
    columns = ["version", "from", "phase", "made", "balanced accuracy", "fits", "signed"]
    print_table("", [*columns, "switched to"], rows)


@models.command()
@_MODEL
@server_option
@json_option
def promote(model: str, server_dir: Path, as_json: bool) -> None:
    """Sign a version and put it into service at every connected site.

    Each site judges it by its own policy first and says whether it switched.
    """
    from server.models import promote as promote_model
    from server.server_settings import ServerFolder

    _told(*promote_model(ServerFolder(server_dir.resolve()), model), as_json)


@models.command()
@server_option
@json_option
def rollback(server_dir: Path, as_json: bool) -> None:
    """Put the version that was promoted before the present one into service again."""
    from server.models import roll_back
    from server.server_settings import ServerFolder

    _told(*roll_back(ServerFolder(server_dir.resolve())), as_json)


@models.command()
@_MODEL
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@server_option
@json_option
def export(model: str, folder: Path, server_dir: Path, as_json: bool) -> None:
    """Write a signed bundle to FOLDER: program, weights, card, signature, public key."""
    from server.models import export as export_model
    from server.server_settings import ServerFolder

    made = export_model(ServerFolder(server_dir.resolve()), model, folder)
    click.echo(json.dumps(made, indent=2) if as_json else f"{made['model']} in {made['folder']}")


def _told(name: str, delivery: str, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"model": name, "delivery": delivery}))
        return
    click.echo(f"{name} signed; its delivery is {delivery}")
    click.echo(f"see what each site did: fedqana rounds status {delivery} --watch")
