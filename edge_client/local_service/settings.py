"""Where the local service listens, who may ask it, and its limits; free of gRPC."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from common.errors import DataNotFound, SettingsError

SOCKET = "service.sock"
_LONGEST_SOCKET_PATH = 107  # of Linux, in bytes


@dataclass(frozen=True)
class TlsFiles:
    """Paths of PEM files for one side: its own certificate and key, and who the other must be.

    ``authority`` holds the certificates of the authority that signed the other side's.
    """

    certificate: Path
    key: Path
    authority: Path

    def read(self) -> tuple[bytes, bytes, bytes]:
        """Contents of certificate, key and authority; SettingsError where one cannot be read."""
        contents = []
        for path in (self.certificate, self.key, self.authority):
            try:
                contents.append(path.read_bytes())
            except OSError as error:
                raise SettingsError(
                    f"cannot read {path} for TLS ({error.strerror}); correct its path or "
                    "permissions"
                ) from error
            if b"-----BEGIN" not in contents[-1]:
                raise SettingsError(f"{path} is no PEM file; give certificate and key as PEM")
        return contents[0], contents[1], contents[2]


@dataclass(frozen=True)
class ServiceSettings:
    """How the service listens and what it bears.

    Parameters
    ----------
    address : str
        ``unix:PATH`` or ``HOST:PORT``; empty for ``service.sock`` in the home folder. Any host but
        this machine itself needs ``tls``.
    tls : TlsFiles, optional
        Ask every caller for a certificate of this authority. The site's own commands then use
        ``service.sock`` in the home folder, which is opened beside the address.
    threads : int
        Requests that are worked on at the same time, beside those that change something.
    changes_at_once : int
        Learn, Correct and Rollback that may wait for their turn; one more is refused.
    requests_at_once : int
        All requests under way; one more is refused.
    write_wait : float
        Seconds that a change waits while another process installs a version.
    message_bytes : int
        Largest message that is read.
    """

    address: str = ""
    tls: TlsFiles | None = None
    threads: int = 8
    changes_at_once: int = 8
    requests_at_once: int = 64
    write_wait: float = 120.0
    message_bytes: int = 32 * 2**20

    def __post_init__(self) -> None:
        numbers = {
            "threads": self.threads,
            "changes_at_once": self.changes_at_once,
            "requests_at_once": self.requests_at_once,
            "message_bytes": self.message_bytes,
        }
        for name, value in numbers.items():
            if value < 1:
                raise SettingsError(f"{name} is {value}; give at least 1")
        if self.write_wait < 0:
            raise SettingsError(f"write_wait is {self.write_wait}; give at least 0 seconds")


@dataclass(frozen=True)
class Endpoint:
    """An address as gRPC takes it; ``socket`` is the file of a Unix socket, else None."""

    target: str
    socket: Path | None
    on_this_machine: bool


def endpoint_of(address: str, home: Path) -> Endpoint:
    """The endpoint of an address; a relative socket path is one below ``home``.

    Raises SettingsError for what is no address, and for a socket path that Linux cannot bear.
    """
    if not address or address.startswith("unix:"):
        path = (home / (address.removeprefix("unix:") or SOCKET)).absolute()
        if len(str(path).encode()) > _LONGEST_SOCKET_PATH:
            raise SettingsError(
                f"{path} is too long for a Unix socket (at most {_LONGEST_SOCKET_PATH} bytes); set "
                "another address, e.g. unix:/run/fedqana.sock or 127.0.0.1:7443"
            )
        return Endpoint(f"unix:{path}", path, True)
    host, _, port = address.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not bare or not (port.isascii() and port.isdecimal() and int(port) < 2**16):
        raise SettingsError(
            f"{address!r} is no address of a service; give unix:PATH or HOST:PORT, e.g. "
            "127.0.0.1:7443"
        )
    return Endpoint(address, None, _is_loopback(bare))


def require_safe(endpoint: Endpoint, tls: TlsFiles | None) -> None:
    """SettingsError where others than this machine could ask without showing a certificate."""
    if not endpoint.on_this_machine and tls is None:
        raise SettingsError(
            f"the service listens on {endpoint.target} only with mutual TLS; give certificate, key "
            "and the authority of the callers' certificates, or listen on unix:PATH or "
            "127.0.0.1:PORT"
        )


def settings_of(home: Path) -> ServiceSettings:
    """What ``[service]`` of the site's ``client.toml`` says; the usual ones without that file."""
    from edge_client.client_folder import CONFIG, ClientFolder

    if not (home / CONFIG).exists():
        return ServiceSettings()
    part = ClientFolder(home).config().service
    certificate, key, authority = (
        home / name if name else None for name in (part.certificate, part.key, part.client_ca)
    )
    return ServiceSettings(part.address, tls_files(certificate, key, authority))


def tls_files(
    certificate: Path | None, key: Path | None, authority: Path | None
) -> TlsFiles | None:
    """The files of one side; None where none is given, SettingsError where only some are."""
    if not (certificate or key or authority):
        return None
    if not (certificate and key and authority):
        raise SettingsError(
            "mutual TLS needs a certificate, its key and the authority of the callers' "
            "certificates; give all three or none"
        )
    return TlsFiles(certificate, key, authority)


def own_address(home: Path) -> str:
    """Where the site's own commands reach its service.

    The address in ``client.toml``, or the socket in ``home`` where callers need a certificate.
    DataNotFound where ``home`` is no folder.
    """
    home = home.absolute()
    if not home.is_dir():
        raise DataNotFound(
            f"there is no client folder {home}; give it with --home or FEDQANA_CLIENT_HOME, or "
            "make it with 'fedqana client join'"
        )
    settings = settings_of(home)
    return endpoint_of("" if settings.tls else settings.address, home).target


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
