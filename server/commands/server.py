"""`fedqana server`: set up and run the coordinator's server."""

import json
from pathlib import Path

import click

from server.commands.options import json_option, server_option
from server.commands.systemd import systemd


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def server() -> None:
    """The coordinator's server: set up, start, renew its certificate."""


server.add_command(systemd)


@server.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--address", required=True, metavar="HOST:PORT", help="What sites will reach.")
@click.option("--listen", metavar="HOST:PORT", help="Where to listen.  [default: 0.0.0.0:PORT]")
@click.option(
    "--superlink-port",
    type=click.IntRange(1, 65535),
    default=8000,
    show_default=True,
    help="Of Flower, on loopback.",
)
@click.option(
    "--enrolment-port",
    type=click.IntRange(1, 65535),
    default=8001,
    show_default=True,
    help="On loopback, behind a proxy only.",
)
@click.option(
    "--database",
    default="",
    metavar="URL",
    help="The history's database.  [default: the SQLite file history.db in the folder]",
)
@json_option
def init(
    folder: Path,
    address: str,
    listen: str | None,
    superlink_port: int,
    enrolment_port: int,
    database: str,
    as_json: bool,
) -> None:
    """Make a server's FOLDER: certificates, keys, settings, database."""
    import os

    from server.setting_up import set_up

    os.umask(0o077)  # keys, a database's password, hospitals' updates
    made = set_up(folder, address, listen, superlink_port, enrolment_port, database)
    if as_json:
        click.echo(json.dumps(made, indent=2))
        return
    click.echo(f"server folder:      {made['folder']}")
    click.echo(f"sites will reach:   {made['address']}")
    click.echo(f"certificate until:  {made['certificate_until']}")
    click.echo(f"history:            {made['database']}")
    click.echo(f"next: fedqana server start --server {folder}")


@server.command()
@server_option
def start(server_dir: Path) -> None:
    """Run the server until it is stopped (Ctrl-C or SIGTERM).

    Flower's SuperLink on loopback, and in front of it what sites reach. Logs go to standard error
    and to logs/server.log as JSON lines.
    """
    from server.server_settings import ServerFolder
    from server.start import start as run

    run(ServerFolder(server_dir.resolve()))


@server.command()
@server_option
@click.option(
    "--port", type=click.IntRange(1, 65535), default=8080, show_default=True, help="On 127.0.0.1."
)
def dashboard(server_dir: Path, port: int) -> None:
    """Show the server in a browser, to look at only, until it is stopped (Ctrl-C or SIGTERM).

    Sites, the run under way, curves, model versions, the audit trail. It listens on this machine's
    loopback only; from another one it is reached through ssh -L.
    """
    from server.dashboard.app import serve
    from server.server_settings import ServerFolder

    def ready(address: str) -> None:
        click.echo(f"dashboard at {address} (this machine only); stop it with Ctrl-C")

    serve(ServerFolder(server_dir.resolve()), port, ready)


@server.command()
@server_option
@json_option
def renew(server_dir: Path, as_json: bool) -> None:
    """Make a new server certificate; sites need not do anything.

    Restart the server after it, and a proxy that has the certificate ('systemctl reload nginx').
    """
    from server.setting_up import renew_certificate

    until = renew_certificate(server_dir.resolve())
    if as_json:
        click.echo(json.dumps({"certificate_until": until}))
        return
    click.echo(f"certificate until {until}; restart the server (and reload nginx) to use it")
