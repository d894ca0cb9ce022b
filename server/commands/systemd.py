"""`fedqana server systemd`: a unit file with which the machine keeps the server running."""

from pathlib import Path

import click

from common.commands.unit_file import hand_over, unit_out_option, user_option
from server.commands.options import json_option, server_option

_FIRST_FREE_PORT = 1024
_SQLITE = "sqlite:///"


@click.command()
@server_option
@user_option
@unit_out_option
@json_option
def systemd(server_dir: Path, user: str | None, out: Path | None, as_json: bool) -> None:
    """Print a systemd unit that runs this server, or write it with --out.

    It has the absolute paths of this installation and lets the server write to its own folder
    only.
    """
    from common.systemd import Unit, service_user
    from server.server_settings import ServerFolder, split_address
    from server.start import processes

    folder = ServerFolder(server_dir.resolve())
    settings = folder.settings()
    embedded = settings.front.kind == "embedded"
    port = split_address(settings.front.listen, "front.listen")[1]
    file = Path(folder.database_url().removeprefix(_SQLITE))
    elsewhere = file.is_absolute() and not file.is_relative_to(folder.path)
    unit = Unit(
        name="fedqana-server",
        description="FedQANA coordinator's server",
        arguments=("server", "start", "--server", str(folder.path)),
        folder=folder.path,
        user=service_user(folder.path, user),
        stop_seconds=sum(process.stop_seconds for process in processes(folder)),
        writable=(file.parent,) if elsewhere else (),
        capabilities=("CAP_NET_BIND_SERVICE",) if embedded and port < _FIRST_FREE_PORT else (),
        after=("postgresql.service",) if folder.database_url().startswith("postgresql") else (),
    )
    hand_over(unit, out, as_json)
