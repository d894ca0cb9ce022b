"""`fedqana database`: the schema version of the run history, and its upgrade."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from server.commands.options import database_option, database_url, json_option, out_option


@click.group()
def database() -> None:
    """Look at the run history's database and upgrade it."""


@database.command()
@out_option
@database_option
@json_option
def status(out: Path, database: str | None, as_json: bool) -> None:
    """Show the schema version found and the one that this program needs."""
    from server.history import schema

    found = schema.status(database_url(database, out))
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
        return
    click.echo(
        f"{found.database}: schema {found.version or 'none'} ({found.state}), "
        f"this program works with {found.needed}"
    )


@database.command()
@out_option
@database_option
@json_option
def upgrade(out: Path, database: str | None, as_json: bool) -> None:
    """Bring the database to this program's schema; a new one is set up."""
    from server.history import schema

    url = database_url(database, out)
    before = schema.upgrade(url)
    if as_json:
        after = schema.status(url)
        click.echo(json.dumps({"before": asdict(before), "after": asdict(after)}, indent=2))
    elif before.state == "current":
        click.echo(f"{before.database}: schema {before.needed} already, nothing to do")
    else:
        click.echo(f"{before.database}: schema {before.version or 'none'} -> {before.needed}")
