"""Keys, certificates, clocks and signatures that do not fit: what the hospital reads in its log."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.keys import new_seal, new_site_key
from server.certificates import make_authority, make_server_certificate
from tests.deployment.hospitals import Hospitals, Process, eventually, hospitals

FAKETIME = shutil.which("faketime")

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, data: dict[str, Path]) -> Iterator[Hospitals]:
    with hospitals(tmp_path_factory.mktemp("trust")) as found:
        found.start_server()
        found.join("north", data["north"])
        yield found


def reads(client: Process, text: str, seconds: float = 60) -> None:
    """Wait until the client's log says ``text`` in one line that says when it tries again."""

    def seen() -> bool:
        return any(
            text in str(line["message"]) and "starts again" in str(line["message"])
            for line in client.lines()
        )

    client.start()
    try:
        eventually(f"the log says {text!r}", seconds, seen)
    finally:
        client.stop()


def test_a_site_that_is_not_approved_is_refused_and_told(made: Hospitals) -> None:
    reads(made.clients["north"], "waits for approval; tell the coordinator its key is SHA256:")
    assert made.sites()["north"]["state"] == "pending"


def test_a_key_that_was_never_registered_is_refused_and_told(made: Hospitals) -> None:
    key = made.home("north") / "keys" / "site.key"
    kept = key.read_bytes()
    key.write_bytes(new_site_key())
    try:
        reads(made.clients["north"], "does not know this site's key; ask for a new enrolment file")
    finally:
        key.write_bytes(kept)


def test_another_authority_is_not_trusted(made: Hospitals, tmp_path: Path) -> None:
    ca = made.home("north") / "keys" / "ca.crt"
    kept = ca.read_bytes()
    make_authority(tmp_path)
    ca.write_bytes((tmp_path / "ca.crt").read_bytes())
    try:
        reads(made.clients["north"], "not of the coordinator's authority")
    finally:
        ca.write_bytes(kept)


@pytest.mark.skipif(FAKETIME is None, reason="no faketime")
@pytest.mark.parametrize(
    ("off", "text"), [("+2d", "clock is"), ("-2d", "clock is wrong")], ids=["ahead", "behind"]
)
def test_a_clock_two_days_off_is_told(made: Hospitals, off: str, text: str) -> None:
    client = made.clients["north"]
    before = client.command
    # Of a machine whose clock is wrong the monotonic clock is right.
    client.command = ["env", "DONT_FAKE_MONOTONIC=1", str(FAKETIME), "-f", off, *before]
    try:
        reads(client, text)
    finally:
        client.command = before


def test_an_expired_certificate_is_told_and_renewed(made: Hospitals) -> None:
    made.server.stop()
    make_server_certificate(made.folder / "tls", "127.0.0.1", days=-1)
    made.server.start()
    try:
        reads(made.clients["north"], "'fedqana server renew'")
    finally:
        made.server.stop()
        made.coordinator("server", "renew")
        made.start_server()


def test_a_version_that_the_coordinator_did_not_sign_is_not_installed(made: Hospitals) -> None:
    made.approve("north")
    client = made.clients["north"]
    client.start()
    made.wait_online("north")
    made.start_run("good", "--rounds", "1", "--qat-rounds", "0")
    made.wait_finished("good")
    current = (made.home("north") / "state" / "current").read_text()
    key = made.folder / "keys" / "bundle.key"
    kept = key.read_bytes()
    key.write_bytes(new_seal()[0])
    try:
        told = json.loads(made.coordinator("models", "promote", "good:1", "--json").stdout)
        eventually(
            "the site refuses it",
            120,
            lambda: client.said("not signed by this site's coordinator"),
        )
        status = made.wait_for(told["delivery"], "its end", 60, lambda s: s["state"] == "finished")
    finally:
        key.write_bytes(kept)
    assert "bundle-damaged" in status["sites"][0]["reason"]
    assert "refused by north (bundle-damaged)" in status["progress"]["message"]
    assert (made.home("north") / "state" / "current").read_text() == current
    answer = made.client("north", "status", "--json")
    assert json.loads(answer.stdout)["state"]["model_version"] == current.strip()
