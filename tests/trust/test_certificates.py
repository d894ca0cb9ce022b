"""The coordinator's authority and its server's certificate, as OpenSSL sees them."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from common.errors import ServerUnreachable
from edge_client.coordinator import Coordinator
from server.certificates import expires, make_authority, make_server_certificate


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    make_authority(folder)
    return folder


@contextmanager
def serving(tls: Path) -> Iterator[int]:
    """A TLS server on loopback with the certificate of a folder."""

    class Quiet(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Quiet)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls / "server.crt", tls / "server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()


def why(port: int, ca: Path, host: str = "127.0.0.1") -> str:
    coordinator = Coordinator(f"{host}:{port}", ca)
    with pytest.raises(ServerUnreachable) as refused:
        coordinator.hello()
    coordinator.close()
    return str(refused.value)


def test_the_right_authority_is_trusted(tls: Path) -> None:
    make_server_certificate(tls, "fedqana.example.org")
    with serving(tls) as port:
        assert "does not answer as a FedQANA server" in why(port, tls / "ca.crt")


def test_another_authority_is_not(tls: Path, tmp_path: Path) -> None:
    make_server_certificate(tls, "127.0.0.1")
    make_authority(tmp_path)
    with serving(tls) as port:
        assert "not of the coordinator's authority" in why(port, tmp_path / "ca.crt")


def test_an_expired_certificate_says_who_renews_it(tls: Path) -> None:
    make_server_certificate(tls, "127.0.0.1", days=-1)
    with serving(tls) as port:
        assert "fedqana server renew" in why(port, tls / "ca.crt")


def test_a_renewed_certificate_is_trusted_by_the_same_authority(tls: Path) -> None:
    make_server_certificate(tls, "127.0.0.1", days=10)
    before = expires(tls / "server.crt")
    make_server_certificate(tls, "127.0.0.1")
    assert expires(tls / "server.crt") > before
    with serving(tls) as port:
        assert "does not answer as a FedQANA server" in why(port, tls / "ca.crt")


def test_who_is_not_there_is_named(tls: Path) -> None:
    make_server_certificate(tls, "127.0.0.1")
    with serving(tls) as port:
        pass
    assert "nothing listens there" in why(1, tls / "ca.crt")
    assert "check DNS" in why(port, tls / "ca.crt", "no-such-host.invalid")
