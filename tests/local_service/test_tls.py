"""Another machine may ask only with a certificate of the right authority."""

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import ServiceUnavailable, SettingsError
from edge_client.local_service.client import LocalServiceClient
from edge_client.local_service.settings import TlsFiles
from tests.local_service.certificates import Authority
from tests.local_service.running import PICTURES, Service, free_port, make_home, png, running


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), "hospital")


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, hospital: Authority
) -> Iterator[tuple[Service, Path]]:
    home = tmp_path_factory.mktemp("site") / "home"
    make_home(home)
    own = hospital.files("service", hospital)
    port = free_port()
    options = [
        *("--address", f"0.0.0.0:{port}"),
        *("--certificate", str(own.certificate)),
        *("--key", str(own.key)),
        *("--client-ca", str(own.authority)),
    ]
    caller = hospital.files("pacs", hospital)
    with running(home, *options, address=f"127.0.0.1:{port}", tls=caller) as found:
        yield found, home


def test_a_caller_with_a_certificate(service: tuple[Service, Path]) -> None:
    with service[0].client() as client:
        assert client.classify(png(PICTURES[0])).answer


def test_a_caller_without_one(service: tuple[Service, Path]) -> None:
    with (
        LocalServiceClient(service[0].address, look_seconds=5) as client,
        pytest.raises(ServiceUnavailable),
    ):
        client.status()


def test_a_caller_of_another_authority(
    service: tuple[Service, Path], hospital: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "stranger").files("pacs", hospital)
    with (
        LocalServiceClient(service[0].address, stranger, look_seconds=5) as client,
        pytest.raises(ServiceUnavailable, match="certificates fit"),
    ):
        client.status()


def test_a_service_of_another_authority(
    service: tuple[Service, Path], hospital: Authority, tmp_path: Path
) -> None:
    """The caller sends no picture to whom it cannot tell."""
    suspicious = hospital.files("careful", Authority(tmp_path, "other"))
    with (
        LocalServiceClient(service[0].address, suspicious, look_seconds=5) as client,
        pytest.raises(ServiceUnavailable, match="certificates fit"),
    ):
        client.classify(png(PICTURES[0]))


def test_the_sites_own_commands_use_the_socket(service: tuple[Service, Path]) -> None:
    socket = service[1] / "service.sock"
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    with LocalServiceClient(f"unix:{socket}") as client:
        client.status()


def test_no_open_address_without_certificates(tmp_path: Path) -> None:
    make_home(tmp_path / "home")
    refused = Service(tmp_path / "home", "--address", f"0.0.0.0:{free_port()}")
    assert refused.process.wait(30) == 60
    log = refused.log()
    assert "only with mutual TLS" in log and len(log.splitlines()) == 1


@pytest.mark.parametrize("content", [None, "no PEM", "-----BEGIN CERTIFICATE-----\nx\n"])
def test_unusable_certificates(tmp_path: Path, hospital: Authority, content: str | None) -> None:
    make_home(tmp_path / "home")
    own = hospital.files("unusable", hospital)
    own = TlsFiles(tmp_path / "certificate.pem", own.key, own.authority)
    if content is not None:
        own.certificate.write_text(content)
    options = [
        *("--address", f"127.0.0.1:{free_port()}"),
        *("--certificate", str(own.certificate)),
        *("--key", str(own.key)),
        *("--client-ca", str(own.authority)),
    ]
    refused = Service(tmp_path / "home", *options)
    assert refused.process.wait(30) == 60
    assert "Traceback" not in refused.log()
    if content != "-----BEGIN CERTIFICATE-----\nx\n":
        with pytest.raises(SettingsError):
            own.read()
