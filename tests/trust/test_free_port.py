"""A port that is in use is told before anything is started there."""

import socket

import pytest

from common.errors import SettingsError
from common.free_port import require_free


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_in_use_is_refused_and_a_free_one_left_free(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as other:
        try:
            other.bind((host, 0))
        except OSError:
            pytest.skip(f"this machine has no {host}")
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(SettingsError, match=f"front.listen: port {port} of {host} is in use"):
            require_free(host, port, "front.listen")
    require_free(host, port, "front.listen")
    require_free(host, port, "front.listen")


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"cannot listen on 192\.0\.2\.1:8443 \("):
        require_free("192.0.2.1", 8443, "front.listen")
