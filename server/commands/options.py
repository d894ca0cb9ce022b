"""The options that several commands share: where the output and the history are, and JSON."""

from pathlib import Path

import click

DEFAULT_OUT = Path("fedqana-out")

out_option = click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_OUT,
    envvar="FEDQANA_OUT",
    show_default=True,
    show_envvar=True,
    help="The output folder of runs.",
)

database_option = click.option(
    "--database",
    metavar="URL",
    envvar="FEDQANA_DATABASE",
    show_envvar=True,
    help="The history's database.  [default: the SQLite file history.db in the output folder]",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def database_url(database: str | None, out: Path) -> str:
    """Return the history's URL: the one given by option or environment, else that of ``out``."""
    from server.history.engine import default_url

    return database or default_url(out)


server_option = click.option(
    "--server",
    "server_dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("fedqana-server"),
    envvar="FEDQANA_SERVER",
    show_default=True,
    show_envvar=True,
    help="The server's folder.",
)
