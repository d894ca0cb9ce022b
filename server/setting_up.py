"""Making a server's folder, and renewing its certificate."""

import secrets
from pathlib import Path

from common.errors import SettingsError
from common.keys import new_seal, write_secret
from server.certificates import expires, make_authority, make_server_certificate
from server.history.store import open_history
from server.nginx import write_nginx_configuration
from server.server_settings import SETTINGS, ServerFolder, split_address

_SECRET_BYTES = 32


def set_up(
    path: Path,
    address: str,
    listen: str | None,
    superlink_port: int,
    enrolment_port: int,
    database: str,
) -> dict[str, str]:
    """Make a new server's folder; what was made, for people.

    A set-up that was cut off is gone through to its end when it is called again; a finished one
    is refused with SettingsError.
    """
    path = path.resolve()
    folder = ServerFolder(path)
    if (path / SETTINGS).exists():
        raise SettingsError(
            f"{path} is a server's folder already; start it with 'fedqana server start --server "
            f"{path}' or choose another folder"
        )
    host, port = split_address(address, "--address")
    if database.startswith("sqlite:///") and not database.startswith("sqlite:////"):
        raise SettingsError(f"--database {database}: give an absolute path, sqlite:////...")
    where = listen or f"0.0.0.0:{port}"
    split_address(where, "--listen")
    if not folder.ca.exists():
        (folder.tls / "ca.key").unlink(missing_ok=True)
        make_authority(folder.tls)
    make_server_certificate(folder.tls, host)
    if not folder.bundle_key.exists():
        write_secret(folder.bundle_key, new_seal()[0])
    if not folder.superexec_secret.exists():
        write_secret(folder.superexec_secret, secrets.token_hex(_SECRET_BYTES).encode())
    enrolment = f"127.0.0.1:{enrolment_port}"
    write_nginx_configuration(path, folder.tls, host, port, superlink_port, enrolment_port)
    from server.history.engine import default_url

    open_history(database or default_url(path)).close()
    folder.write_settings(address, where, enrolment, superlink_port, database)
    return {
        "folder": str(path),
        "address": address,
        "certificate_until": f"{expires(folder.tls / 'server.crt'):%Y-%m-%d}",
        "database": "PostgreSQL" if database.startswith("postgresql") else "SQLite",
    }


def renew_certificate(path: Path) -> str:
    """A new server certificate for the settings' address; the day on which it ends."""
    folder = ServerFolder(path)
    host, _ = split_address(folder.settings().address, "address")
    make_server_certificate(folder.tls, host)
    return f"{expires(folder.tls / 'server.crt'):%Y-%m-%d}"
