"""The way to the coordinator's server, one step after the other: name, connection, certificate,
version, clock, membership. After a step that failed the others say why they were left out."""

import socket
import ssl
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from common import __version__
from common.enrolment import Hello
from common.errors import FedqanaError
from common.keys import fingerprint, public_part
from common.messages import PROTOCOL
from edge_client.checks.findings import (
    Check,
    Outcome,
    failed,
    not_checked,
    ok,
    seconds_in_words,
    warning,
)
from edge_client.checks.folder import host_and_port
from edge_client.client_folder import CONFIG, ClientConfig, ClientFolder
from edge_client.coordinator import Coordinator, reason_of

MOST_AHEAD = 5.0
"""Seconds. Flower's server refuses signatures from further in the future than this, and from longer
ago than 305 s (SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE); the enrolment page, than 300 s."""
MOST_BEHIND = 300.0
_WARN_AHEAD = 2.0
_WARN_BEHIND = 30.0

CERTIFICATE_DAYS = 30
_DAY = 86400
_CONNECT_SECONDS = 3.0
_SET_CLOCK = "set it, and keep it right (e.g. with systemd-timesyncd: timedatectl set-ntp true)"
_MARKS = (CONFIG, "site.json", "policy.toml", "audit.jsonl", "logs/client.log")


class NetworkChecks:
    """Goes to the server as the client does, without changing anything there."""

    def __init__(self, home: Path) -> None:
        self._folder = ClientFolder(home)
        self._stopped = ""  # at which step, and why
        self._hello: Hello | None = None
        self._clock_is_off = False

    def checks(self) -> Sequence[Check]:
        """In the order in which one needs the other."""
        return [
            self._step("name", self.name, 3.5, "was not found in time; check DNS"),
            self._step("connection", self.connection, 4.5, "no answer in time; check the firewall"),
            self._step("certificate", self.certificate, 4.0, "no TLS in time; check the firewall"),
            self._step("server", self.server, 6.0, "no answer in time; try again"),
            Check("versions", self.versions),
            Check("clock", self.clock, 6.0, failed("no answer in time; try again")),
            self._step("membership", self.membership, 6.0, "no answer in time; try again"),
        ]

    def _step(
        self, name: str, step: Callable[[ClientConfig], Outcome], seconds: float, slow: str
    ) -> Check:
        """A check that is left out where one before it failed."""

        def look() -> Outcome:
            try:
                config = self._folder.config()
                host_and_port(config.server)
            except FedqanaError:
                return not_checked("the settings must be mended first")
            if self._stopped:
                return not_checked(self._stopped)
            self._stopped = f"{name} failed: {slow}"  # holds where it does not end in time
            try:
                outcome = step(config)
            except FedqanaError as error:
                outcome = failed(str(error))
            self._stopped = f"{name} failed: {outcome.text}" if outcome.standing == "failed" else ""
            return outcome

        return Check(name, look, seconds, failed(slow))

    def name(self, config: ClientConfig) -> Outcome:
        """The host's name has addresses."""
        host, port = host_and_port(config.server)
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            return failed(f"{host}: {_reason(error)}")
        addresses = list(dict.fromkeys(str(address[4][0]) for address in found))
        return ok(host if addresses == [host] else f"{host} is {', '.join(addresses)}")

    def connection(self, config: ClientConfig) -> Outcome:
        """A TCP connection can be opened."""
        try:
            started = time.monotonic()
            socket.create_connection(host_and_port(config.server), _CONNECT_SECONDS).close()
        except OSError as error:
            return failed(f"{config.server}: {_reason(error)}")
        return ok(f"{config.server} in {1000 * (time.monotonic() - started):.0f} ms")

    def certificate(self, config: ClientConfig) -> Outcome:
        """The server has a certificate of the coordinator's authority for its name."""
        address = host_and_port(config.server)
        try:
            context = ssl.create_default_context(cafile=str(self._folder.ca))
        except OSError:
            return failed(f"{self._folder.ca} is no certificate authority; see keys")
        try:
            with (
                socket.create_connection(address, _CONNECT_SECONDS) as plain,
                context.wrap_socket(plain, server_hostname=address[0]) as secure,
            ):
                shown = secure.getpeercert() or {}
        except OSError as error:  # an SSLError is one
            return failed(f"{config.server}: {_reason(error)}")
        ends = [shown, *context.get_ca_certs()]
        last = min(ssl.cert_time_to_seconds(str(one["notAfter"])) for one in ends)
        day, days = f"{datetime.fromtimestamp(last, UTC):%Y-%m-%d}", (last - time.time()) / _DAY
        if days < CERTIFICATE_DAYS:
            return warning(
                f"it ends on {day}, in {days:.0f} days; tell the coordinator, who renews it with "
                "'fedqana server renew'"
            )
        return ok(f"of the coordinator's authority, until {day}")

    def server(self, config: ClientConfig) -> Outcome:
        """What answers is a FedQANA server."""
        coordinator = Coordinator(config.server, self._folder.ca)
        try:
            self._hello = coordinator.hello()
        finally:
            coordinator.close()
        return ok("it answers")

    def versions(self) -> Outcome:
        """Both sides understand each other."""
        server = self._hello
        if server is None:
            return not_checked(self._stopped or "the settings must be mended first")
        if server.protocol != PROTOCOL:
            older = "this site" if server.protocol > PROTOCOL else "the server"
            return failed(
                f"the server speaks protocol {server.protocol} (fedqana {server.fedqana}), this "
                f"site {PROTOCOL} (fedqana {__version__}); update {older}"
            )
        flower = version("flwr")
        if server.flwr.split(".")[:2] != flower.split(".")[:2]:
            return failed(
                f"the server runs Flower {server.flwr}, this site {flower}, which it refuses; "
                "install the release of fedqana that the coordinator runs"
            )
        if (server.fedqana, server.flwr) != (__version__, flower):
            return warning(
                f"the server runs fedqana {server.fedqana} with Flower {server.flwr}, this site "
                f"{__version__} with {flower}; they work together, update the older one"
            )
        return ok(f"fedqana {__version__}, Flower {flower}, protocol {PROTOCOL} on both sides")

    def clock(self) -> Outcome:
        """This machine's clock is that of the server; offline, not before its own files."""
        if self._hello is None:
            outcome = self._clock_by_files()
            self._clock_is_off = outcome.standing == "failed"
            return outcome
        coordinator = Coordinator(self._folder.config().server, self._folder.ca)
        try:
            coordinator.hello()  # opens the connection, which takes time
            before = datetime.now(UTC)
            at = coordinator.hello().time
            after = datetime.now(UTC)
        finally:
            coordinator.close()
        # The server read its clock between the two, so the clock is off by so much at least.
        ahead, behind = (before - at).total_seconds(), (at - after).total_seconds()
        self._clock_is_off = ahead >= MOST_AHEAD or behind >= MOST_BEHIND
        if max(ahead, behind) > 0:
            off = f"{seconds_in_words(max(ahead, behind))} {'ahead' if ahead > 0 else 'behind'}"
        else:
            off = "equal"
        limits = f"the server refuses {MOST_AHEAD:.0f} s ahead or {MOST_BEHIND:.0f} s behind"
        if self._clock_is_off:
            return failed(f"this machine's clock is {off}, {limits}; {_SET_CLOCK}")
        if ahead > _WARN_AHEAD or behind > _WARN_BEHIND:
            return warning(f"this machine's clock is {off}, {limits}; {_SET_CLOCK}")
        return ok(f"{off}, as the server's" if off == "equal" else f"{off} of the server's")

    def _clock_by_files(self) -> Outcome:
        """Without a server's time: files from the future show a clock that is behind."""
        newest = 0.0
        for name in _MARKS:
            path = self._folder.path / name
            if path.exists():
                newest = max(newest, path.stat().st_mtime)
        if newest > time.time() + 60:
            return failed(
                f"this machine's clock is {seconds_in_words(newest - time.time())} behind the last "
                f"change in the client's folder; {_SET_CLOCK}"
            )
        return not_checked(self._stopped or "the settings must be mended first")

    def membership(self, config: ClientConfig) -> Outcome:
        """The site takes part, as the coordinator sees it."""
        if self._clock_is_off:
            return not_checked("the clock must be set first")
        try:
            key = self._folder.key.read_bytes()
        except OSError:
            return not_checked("the key must be mended first")
        own = fingerprint(public_part(key))
        coordinator = Coordinator(config.server, self._folder.ca)
        try:
            reply = coordinator.state(config.site, key)
        finally:
            coordinator.close()
        match reply.state:
            case "approved" if reply.fingerprint == own:
                return ok(f"approved as {config.site}")
            case "pending":
                return failed(
                    f"waits for the coordinator's approval: tell them the key's fingerprint {own} "
                    "on a way that both trust"
                )
            case "revoked":
                return failed(
                    "the coordinator took this site's membership away; ask them, and for a new "
                    "enrolment file ('fedqana client rejoin FILE') if it is to take part again"
                )
        return failed(
            f"the server knows no site {config.site!r} with this key; ask the coordinator for a "
            "new enrolment file and register anew ('fedqana client rejoin FILE')"
        )


def _reason(error: OSError) -> str:
    words = reason_of(error)
    if words == type(error).__name__:  # not one that it knows
        return f"{error.strerror or error}; check the address, the network and the firewall"
    return words
