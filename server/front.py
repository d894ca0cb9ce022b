"""What sites reach: the Fleet API of the SuperLink and the enrolment page, and nothing else.

Flower's SuperLink serves Fleet, Control and Runtime API on one port, the Control API without any
authentication. So it listens on loopback, and this ASGI app is what is open to the network: it
passes ``/v1/fleet/`` on and answers ``/fedqana/v1/`` itself; all other paths are 403. Behind a
proxy of one's own (nginx.conf) only the enrolment part is used.
"""

import logging
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

import httpx

from common.enrolment import PREFIX
from server.enrolment import Enrolment
from server.server_settings import ServerFolder, split_address

log = logging.getLogger("fedqana.front")

FLEET = "/v1/fleet/"
_FLEET_CALL = re.compile(rb"/v1/fleet/[a-z]+(-[a-z]+)*")
LARGEST_ENROLMENT_BODY = 16_384
LARGEST_FLEET_BODY = 64 * 2**20
"""Flower sends objects of 5 MB at most; the SuperLink reads a body before it looks who sent it."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# Of one hop only (RFC 9110, 7.6.1), or set anew by the client or server library.
_HOP = {
    b"connection",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"host",
}
_TIMEOUT = httpx.Timeout(connect=5.0, read=120.0, write=120.0, pool=30.0)


def is_fleet(raw_path: bytes, path: str) -> bool:
    """Whether a request is for the Fleet API.

    Only paths that name one of its calls plainly: with escapes, dots or doubled slashes the
    SuperLink could read another path than this function does.
    """
    return _FLEET_CALL.fullmatch(raw_path) is not None and raw_path.decode() == path


class Front:
    """The ASGI app.

    Parameters
    ----------
    folder : ServerFolder
    passes_fleet : bool
        False behind a proxy, which passes the Fleet API on itself.
    """

    def __init__(self, folder: ServerFolder, passes_fleet: bool = True) -> None:
        self._enrolment = Enrolment(folder)
        self._trouble = ""
        self._client: httpx.AsyncClient | None = None
        if passes_fleet:
            context = ssl.create_default_context(cafile=str(folder.ca))
            limits = httpx.Limits(max_connections=200, max_keepalive_connections=50)
            self._client = httpx.AsyncClient(
                base_url=f"https://{folder.superlink_address()}",
                verify=context,
                timeout=_TIMEOUT,
                limits=limits,
                trust_env=False,
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        path = str(scope["path"])
        try:
            await self._serve(scope, path, receive, send)
        except _Gone:
            pass  # nobody is there to be answered
        except _TooLarge:
            await _answer(send, 413, b"")

    async def _serve(self, scope: Scope, path: str, receive: Receive, send: Send) -> None:
        if self._client is not None and is_fleet(scope["raw_path"], path):
            await self._pass_on(self._client, scope, receive, send)
        elif path.startswith(PREFIX + "/"):
            parts = [chunk async for chunk in _chunks(receive, LARGEST_ENROLMENT_BODY)]
            body = b"".join(parts)
            status, content = await self._enrolment.serve(scope["method"], path, body)
            await _answer(send, status, content)
        else:
            await _answer(send, 403, b"")

    def _note(self, trouble: str) -> None:
        """Log the beginning and the end of an outage, not every request within it."""
        if trouble and not self._trouble:
            log.warning("the SuperLink does not answer (%s); sites try again", trouble)
        elif self._trouble and not trouble:
            log.info("the SuperLink answers again")
        self._trouble = trouble

    async def _pass_on(
        self, client: httpx.AsyncClient, scope: Scope, receive: Receive, send: Send
    ) -> None:
        headers = [(k, v) for k, v in scope["headers"] if k.lower() not in _HOP]
        query = scope.get("query_string", b"")
        target = str(scope["path"]) + (f"?{query.decode('ascii')}" if query else "")
        content = _chunks(receive, LARGEST_FLEET_BODY)
        request = client.build_request(scope["method"], target, headers=headers, content=content)
        begun = False
        try:
            response = await client.send(request, stream=True)
            self._note("")
            try:
                kept = [(k, v) for k, v in response.headers.raw if k.lower() not in _HOP]
                await send(
                    {"type": "http.response.start", "status": response.status_code, "headers": kept}
                )
                begun = True
                async for chunk in response.aiter_raw():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            finally:
                await response.aclose()
            await send({"type": "http.response.body", "body": b""})
        except httpx.HTTPError as error:
            self._note(type(error).__name__)
            if begun:  # cut off: the site sees an incomplete reply and asks again
                raise
            await _answer(send, 503, b"")


class _Gone(Exception):
    """The site closed its connection in the middle of a request."""


class _TooLarge(Exception):
    """A request with a larger body than any that a site sends."""


async def _chunks(receive: Receive, most: int) -> AsyncIterator[bytes]:
    length = 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise _Gone
        chunk = event.get("body", b"")
        length += len(chunk)
        if length > most:
            raise _TooLarge
        yield chunk
        if not event.get("more_body"):
            return


async def _answer(send: Send, status: int, content: bytes) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def serve(folder: ServerFolder) -> None:
    """Serve until SIGTERM, as the settings say: with TLS, or on loopback for a proxy."""
    import uvicorn

    settings = folder.settings().front
    embedded = settings.kind == "embedded"
    host, port = (
        split_address(settings.listen, "front.listen")
        if embedded
        else split_address(settings.enrolment, "front.enrolment")
    )
    uvicorn.run(
        Front(folder, passes_fleet=embedded),
        host=host,
        port=port,
        ssl_certfile=str(folder.tls / "server.crt") if embedded else None,
        ssl_keyfile=str(folder.tls / "server.key") if embedded else None,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_keep_alive=75,
        limit_concurrency=1000,
    )


if __name__ == "__main__":
    from common.json_log import log_to_stream
    from server.server_settings import folder_of_this_process

    log_to_stream()
    serve(folder_of_this_process())
