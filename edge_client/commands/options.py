"""The options that the client's commands share."""

from pathlib import Path

import click

DEFAULT_HOME = Path("fedqana-client")

home_option = click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_HOME,
    envvar="FEDQANA_CLIENT_HOME",
    show_default=True,
    show_envvar=True,
    help="The edge client's folder.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
