"""Whether a port can be listened on, before what would listen there is started."""

import errno
import socket

from common.errors import SettingsError


def require_free(host: str, port: int, setting: str) -> None:
    """SettingsError, naming ``setting``, where nothing can listen on ``host`` and ``port``."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            own.bind((host, port))
            own.listen()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise SettingsError(
                    f"{setting}: port {port} of {host} is in use; end what listens there, or set "
                    "another port"
                ) from error
            raise SettingsError(
                f"{setting}: cannot listen on {host}:{port} ({error.strerror or error}); set "
                "another address"
            ) from error
