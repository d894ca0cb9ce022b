"""How a site speaks to its coordinator's server about its membership, over TLS."""

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from common.enrolment import (
    PREFIX,
    Hello,
    JoinAsk,
    Refusal,
    StateAsk,
    StateReply,
    join_content,
    state_content,
)
from common.errors import EnrolmentRefused, FedqanaError, ServerUnreachable
from common.keys import public_part, sign_as_site
from edge_client.client_folder import ClientFolder

_MOST_AHEAD, _MOST_BEHIND = 5.0, 305.0
"""Seconds by which a site's clock may differ: flwr's SYSTEM_TIME_ and TIMESTAMP_TOLERANCE."""

_PROXY_ALONE = (502, 503, 504)
_TIMEOUT = httpx.Timeout(connect=10.0, read=30.0, write=30.0, pool=10.0)
M = TypeVar("M", bound=BaseModel)


class Coordinator:
    """The server's enrolment page.

    Parameters
    ----------
    address : str
        ``HOST:PORT``.
    ca : Path
        PEM of the only authority that is trusted.
    """

    def __init__(self, address: str, ca: Path) -> None:
        self._address = address
        try:
            context = ssl.create_default_context(cafile=str(ca))
        except OSError as error:
            raise ServerUnreachable(
                f"{ca} is no certificate authority ({error.strerror or error}); join again with "
                "the enrolment file"
            ) from error
        self._client = httpx.Client(
            base_url=f"https://{address}{PREFIX}",
            verify=context,
            timeout=_TIMEOUT,
            trust_env=False,
        )

    def hello(self) -> Hello:
        """What the server says of itself."""
        return self._ask("GET", "/hello", None, Hello)

    def join(self, site: str, code: str, key: bytes, software: dict[str, str]) -> StateReply:
        """Hand over the public part of a site's key for its one-time code."""
        public = public_part(key)
        ask = JoinAsk(
            site=site,
            code=code,
            public_key=public,
            signature=sign_as_site(key, join_content(site, code, public)),
            software=software,
        )
        return self._ask("POST", "/join", ask, StateReply)

    def state(self, site: str, key: bytes) -> StateReply:
        """How the site stands."""
        at = datetime.now(UTC)
        ask = StateAsk(site=site, at=at, signature=sign_as_site(key, state_content(site, at)))
        return self._ask("POST", "/state", ask, StateReply)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _ask(self, method: str, page: str, body: BaseModel | None, form: type[M]) -> M:
        content = b"" if body is None else body.model_dump_json().encode()
        try:
            response = self._client.request(method, page, content=content)
        except (httpx.HTTPError, OSError) as error:
            raise ServerUnreachable(
                f"the coordinator's server {self._address} cannot be reached: {reason_of(error)}"
            ) from error
        try:
            if response.status_code in _PROXY_ALONE and not _is_json(response):
                raise ServerUnreachable(
                    f"a proxy answers at {self._address}, but the coordinator's server behind it "
                    f"does not (status {response.status_code}); try later, or tell the coordinator"
                )
            if response.status_code != 200:
                refusal = Refusal.model_validate_json(response.content)
                raise EnrolmentRefused(refusal.refused)
            return form.model_validate_json(response.content)
        except ValidationError as error:
            raise ServerUnreachable(
                f"{self._address} does not answer as a FedQANA server of this version (status "
                f"{response.status_code}); check the address, and the versions of both sides"
            ) from error


def _is_json(response: httpx.Response) -> bool:
    """Whether FedQANA's server answered, and not a proxy in its place."""
    return "json" in response.headers.get("content-type", "")


def why_not_connected(folder: ClientFolder) -> str:
    """Why Flower's node of this site is not let in, and what to do, in one line."""
    try:
        config = folder.config()
        coordinator = Coordinator(config.server, folder.ca)
        try:
            hello = coordinator.hello()
            ahead = (datetime.now(UTC) - hello.time).total_seconds()
            if ahead > _MOST_AHEAD or ahead < -_MOST_BEHIND:
                return (
                    f"this machine's clock is {abs(ahead):.0f} s off the server's, which refuses "
                    "its signatures; set it (e.g. with systemd-timesyncd)"
                )
            reply = coordinator.state(config.site, folder.key.read_bytes())
        finally:
            coordinator.close()
    except FedqanaError as error:
        return str(error)
    except OSError as error:
        return f"{folder.key} cannot be read: {error.strerror}; restore it from a backup"
    return {
        "pending": f"the site waits for approval; tell the coordinator its key is "
        f"{reply.fingerprint}",
        "revoked": "the coordinator has revoked this site; ask for a new enrolment file",
        "unknown": "the server does not know this site's key; ask for a new enrolment file",
        "invited": "the server does not know this site's key; join with the enrolment file",
        "approved": "Flower's node was refused although the site is approved; after a crash it is "
        "let in again within a minute",
    }[reply.state]


def reason_of(error: BaseException) -> str:
    """Why a connection failed and what to do, from the whole chain of causes."""
    texts = []
    cause: BaseException | None = error
    while cause is not None:
        texts.append(str(cause))
        cause = cause.__cause__ or cause.__context__
    text = " ".join(texts)
    known = {
        "certificate has expired": "its certificate has expired; the coordinator renews it "
        "('fedqana server renew') - or this machine's clock is wrong",
        "certificate is not yet valid": "its certificate is not valid yet: this machine's clock is "
        "wrong; set it (e.g. with systemd-timesyncd)",
        "Hostname mismatch": "its certificate is for another name; use the address of the "
        "enrolment file",
        "IP address mismatch": "its certificate is for another address; use the address of the "
        "enrolment file",
        "unable to get local issuer": "its certificate is not of the coordinator's authority; "
        "somebody is between, or the server was set up anew: ask for a new enrolment file",
        "self-signed certificate": "its certificate is not of the coordinator's authority; "
        "somebody is between, or the server was set up anew: ask for a new enrolment file",
        "CERTIFICATE_VERIFY_FAILED": "its certificate is not accepted; ask the coordinator",
        "Name or service not known": "its name is not known; check DNS and the address",
        "Temporary failure in name resolution": "its name cannot be looked up; check DNS",
        "nodename nor servname": "its name is not known; check DNS and the address",
        "Connection refused": "nothing listens there; is the server started?",
        "Network is unreachable": "there is no way to it; check the network",
        "No route to host": "there is no way to it; check the network and the firewall",
        "timed out": "no answer in time; check the firewall: one outgoing TLS connection is needed",
        "WRONG_VERSION_NUMBER": "it does not speak TLS; check address and port",
    }
    return next((words for sign, words in known.items() if sign in text), type(error).__name__)
