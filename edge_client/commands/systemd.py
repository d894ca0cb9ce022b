"""`fedqana client systemd`: a unit file with which the machine keeps the edge client running."""

from pathlib import Path

import click

from common.commands.unit_file import hand_over, unit_out_option, user_option
from edge_client.commands.options import home_option, json_option

_DEVICES = tuple(f"/dev/{kind}{n}" for kind in ("akida", "akd1500_") for n in range(4))


@click.command()
@home_option
@user_option
@unit_out_option
@json_option
def systemd(home: Path, user: str | None, out: Path | None, as_json: bool) -> None:
    """Print a systemd unit that runs this edge client, or write it with --out.

    It has the absolute paths of this installation and lets the client write to its own folder
    only.
    """
    from common.systemd import Unit, service_user
    from edge_client.client_folder import ClientFolder
    from edge_client.local_service.settings import endpoint_of
    from edge_client.start import processes

    folder = ClientFolder(home.resolve())
    config = folder.config()
    writable = [folder.path / config.watch.folder] if config.watch.folder else []
    socket = endpoint_of(config.service.address, folder.path).socket
    if socket is not None and not socket.is_relative_to(folder.path):
        writable.append(socket.parent)
    unit = Unit(
        name="fedqana-client",
        description=f"FedQANA edge client of {config.site}",
        arguments=("client", "start", "--home", str(folder.path)),
        folder=folder.path,
        user=service_user(folder.path, user),
        stop_seconds=sum(process.stop_seconds for process in processes(folder)),
        writable=writable,
        devices=_DEVICES,
    )
    hand_over(unit, out, as_json)
