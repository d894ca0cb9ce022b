"""What `fedqana client systemd` and `fedqana server systemd` share: options, and the file's way."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from common.systemd import Unit

user_option = click.option(
    "--user", metavar="NAME", help="The user it runs as.  [default: the folder's owner]"
)
unit_out_option = click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the file, e.g. into /etc/systemd/system, instead of printing it.",
)


def hand_over(unit: "Unit", out: Path | None, as_json: bool) -> None:
    """Print a unit file, or write it and say what comes next."""
    from common.files import write_atomically
    from common.systemd import unit_text

    text = unit_text(unit)
    if unit.user == "root":
        click.echo(
            f"note: it runs as root, who owns {unit.folder}; better give the folder to a user of "
            "its own (docs/systemd.md)",
            err=True,
        )
    if out is not None:
        write_atomically(out, text.encode())
    if as_json:
        values = {
            "unit": f"{unit.name}.service",
            "user": unit.user,
            "file": str(out) if out else None,
            "text": text,
        }
        click.echo(json.dumps(values, indent=2))
    elif out is None:
        click.echo(text, nl=False)
    else:
        name = out.name.removesuffix(".service")
        click.echo(f"{out} written; next: systemctl daemon-reload; systemctl enable --now {name}")
