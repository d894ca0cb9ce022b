from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import DataNotFound, SettingsError
from edge_client.client_folder import ClientFolder
from edge_client.local_service.referral import Head, Referral, ReferReason
from edge_client.local_service.settings import (
    ServiceSettings,
    TlsFiles,
    endpoint_of,
    own_address,
    require_safe,
    settings_of,
)
from edge_client.local_service.site_referral import SiteReferral
from edge_client.policy import POLICY

TLS = TlsFiles(Path("c"), Path("k"), Path("a"))


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("", "unix:/home/x/service.sock"),
        ("unix:other.sock", "unix:/home/x/other.sock"),
        ("unix:/run/fedqana.sock", "unix:/run/fedqana.sock"),
        ("127.0.0.1:7443", "127.0.0.1:7443"),
        ("127.8.0.1:7443", "127.8.0.1:7443"),
        ("localhost:1", "localhost:1"),
        ("[::1]:7443", "[::1]:7443"),
    ],
)
def test_addresses_of_this_machine_need_no_certificates(address: str, target: str) -> None:
    endpoint = endpoint_of(address, Path("/home/x"))
    assert endpoint.target == target
    require_safe(endpoint, None)


@pytest.mark.parametrize(
    "address", ["0.0.0.0:7443", "10.0.0.5:7443", "[::]:7443", "pacs.hospital.example:1", "127.1:7"]
)
def test_other_addresses_need_mutual_tls(address: str) -> None:
    endpoint = endpoint_of(address, Path("/home/x"))
    with pytest.raises(SettingsError, match="only with mutual TLS") as refused:
        require_safe(endpoint, None)
    assert "\n" not in str(refused.value)
    require_safe(endpoint, TLS)


@pytest.mark.parametrize("address", ["7443", ":7443", "host:", "host:x", "host:65536", "host:-1"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(SettingsError, match="is no address"):
        endpoint_of(address, Path("/home/x"))


def test_a_socket_path_that_linux_cannot_bear() -> None:
    with pytest.raises(SettingsError, match="too long for a Unix socket"):
        endpoint_of("", Path("/" + "x" * 100))


@pytest.mark.parametrize(
    "name", ["threads", "changes_at_once", "requests_at_once", "message_bytes"]
)
def test_limits_that_let_nothing_through(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        replace(ServiceSettings(), **{name: 0})  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="write_wait"):
        ServiceSettings(write_wait=-1)


def test_settings_of_a_site_that_joined(tmp_path: Path) -> None:
    assert settings_of(tmp_path) == ServiceSettings()
    assert own_address(tmp_path) == f"unix:{tmp_path}/service.sock"
    ClientFolder(tmp_path).write_config("site-1", "server:9092", "seal", 9094)
    assert settings_of(tmp_path) == ServiceSettings()
    config = tmp_path / "client.toml"
    usual = config.read_text()
    config.write_text(usual.replace('address = ""', 'address = "127.0.0.1:7443"'))
    assert own_address(tmp_path) == "127.0.0.1:7443"
    for name in ("certificate", "key", "client_ca"):
        with pytest.raises(SettingsError, match="give all three or none"):
            settings_of(_with(config, usual, **{name: "x.pem"}))
    settings_of(_with(config, usual, certificate="c", key="k", client_ca="/a", address="0.0.0.0:1"))
    assert settings_of(tmp_path).tls == TlsFiles(tmp_path / "c", tmp_path / "k", Path("/a"))
    # Callers need a certificate there; the site's own commands use the socket beside it.
    assert own_address(tmp_path) == f"unix:{tmp_path}/service.sock"


def _with(config: Path, text: str, **values: str) -> Path:
    for name, value in values.items():
        assert f'{name} = ""' in text
        text = text.replace(f'\n{name} = ""', f'\n{name} = "{value}"')
    config.write_text(text)
    return config.parent


def test_no_home() -> None:
    with pytest.raises(DataNotFound, match="no client folder /nowhere"):
        own_address(Path("/nowhere"))


@pytest.mark.parametrize(
    ("answer", "probability", "head", "reasons"),
    [
        ("nv", 0.9, Head.BOTH, ()),
        ("nv", 0.7, Head.PROGRAM, ()),
        ("nv", 0.69, Head.BOTH, (ReferReason.LOW_CONFIDENCE,)),
        ("mel", 0.9, Head.BOTH, (ReferReason.REFERRED_CLASS,)),
        ("new", 0.9, Head.CHIP, (ReferReason.NEW_CLASS,)),
        ("mel", 0.1, Head.CHIP, tuple(ReferReason)),
    ],
)
def test_referral(
    answer: str, probability: float, head: Head, reasons: tuple[ReferReason, ...]
) -> None:
    assert Referral().reasons(answer, probability, head) == reasons


def test_a_limit_that_is_no_probability() -> None:
    for limit in (-0.1, 1.1, float("nan")):
        with pytest.raises(SettingsError, match="from 0 to 1"):
            Referral(limit)


def test_the_policys_rule_is_the_one_of_now(tmp_path: Path) -> None:
    rule = SiteReferral(tmp_path)
    assert rule.rule() == Referral()
    policy = tmp_path / POLICY
    policy.write_text('[referral]\nconfidence_below = 0.9\nclasses = ["bcc", "mel"]\n')
    assert rule.rule() == Referral(0.9, ("bcc", "mel"))
    policy.write_text("[referral]\nconfidence_below = 9\n")
    assert rule.rule() == Referral(0.9, ("bcc", "mel")) and "confidence_below" in rule.problem
    with pytest.raises(SettingsError, match="confidence_below"):
        SiteReferral(tmp_path)
    policy.write_text("[referral]\nclasses = []\n")
    assert rule.rule() == Referral(0.7, ()) and rule.problem == ""
    assert SiteReferral(tmp_path, Referral(0.1)).rule() == Referral(0.1)
