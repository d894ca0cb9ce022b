"""`fedqana client`: look at a site's programs and go back to an earlier one."""

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import click

from edge_client.commands import service_calls
from edge_client.commands.audit import audit
from edge_client.commands.check import check
from edge_client.commands.membership import join, prepare, rejoin, start
from edge_client.commands.options import home_option
from edge_client.commands.systemd import systemd

_STATE_INSTEAD = click.option(
    "--state",
    "state_dir",
    type=click.Path(path_type=Path),
    help="Folder of a simulated site's state, in place of a running edge client.",
)
_PATIENCE = 15.0
"""Seconds to wait for a deployment that is under way."""

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def client() -> None:
    """Programs and on-chip learning of one site."""


client.add_command(audit)
client.add_command(check)
client.add_command(join)
client.add_command(prepare)
client.add_command(rejoin)
client.add_command(start)
client.add_command(systemd)
for _command in service_calls.COMMANDS:
    client.add_command(_command)


@client.command()
@_STATE_INSTEAD
@home_option
@_JSON
def status(state_dir: Path | None, home: Path, as_json: bool) -> None:
    """Show the program in service and what it has learned."""
    if state_dir is None:
        service_calls.status_from_service(home, as_json)
        return
    with _held(state_dir, shared=True):
        values = _service(state_dir, read_only=True).status()
    _print(values, as_json)


@client.command()
@_STATE_INSTEAD
@home_option
@_JSON
def versions(state_dir: Path | None, home: Path, as_json: bool) -> None:
    """List the versions that are kept, oldest first; 'rollback' goes back to the one before."""
    state_dir = state_dir or home / "state"
    folder = _versions(state_dir)
    with _held(state_dir, shared=True):
        current = folder.require_current()
        rows = [
            {**folder.report(name).to_json(), "current": name == current} for name in folder.names()
        ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        mark = "*" if row["current"] else " "
        result = "switched" if row["switched"] else f"kept {row['serving']}: {row['reason']}"
        result += ", fine-tuned here" if row["switched"] and row["made_of"] else ""
        click.echo(f"{mark} {row['version']:<12} round {row['round']:<4} {result}")


@client.command()
@_STATE_INSTEAD
@home_option
@_JSON
def rollback(state_dir: Path | None, home: Path, as_json: bool) -> None:
    """Return to the last version with another program; nothing learned is lost."""
    if state_dir is None:
        service_calls.rollback_through_service(home, as_json)
        return
    _versions(state_dir).require_current()  # before a lock makes the folder
    with _held(state_dir):
        service = _service(state_dir)
        service.rollback()
        _print(service.status(), as_json)


def _held(state_dir: Path, shared: bool = False) -> AbstractContextManager[None]:
    """The state folder's lock; for looking it is shared."""
    from edge_client.state_lock import state_in_use

    return state_in_use(state_dir, wait=_PATIENCE, shared=shared)


def _versions(state_dir: Path) -> Any:
    from edge_client.versions import VersionFolder

    return VersionFolder(state_dir)


def _service(state_dir: Path, read_only: bool = False) -> Any:
    """The site's client; refuses a folder without one instead of making it."""
    from edge_client.service import EdgeClient

    _versions(state_dir).require_current()
    return EdgeClient(state_dir, read_only=read_only)


def _print(values: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(values, indent=2))
        return
    for name, value in values.items():
        text = ", ".join(value) if isinstance(value, list) else value
        click.echo(f"{name.replace('_', ' ') + ':':<18}{text}")
