"""The dashboard's pages over HTTP, and how they are served: on 127.0.0.1 only."""

import errno
import hashlib
import logging
import signal
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import jinja2
import uvicorn
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from starlette.exceptions import HTTPException

from common import __version__
from common.errors import FedqanaError, RunNotFound, SettingsError
from server.dashboard import models_page, pages, run_page
from server.dashboard.drawing import FIGURES, Drawings, shown
from server.dashboard.guard import Guard
from server.dashboard.source import Source
from server.dashboard.words import ago
from server.history.store import LATEST
from server.server_settings import ServerFolder

log = logging.getLogger("fedqana.dashboard")

HOST = "127.0.0.1"
_HERE = Path(__file__).parent
_STATIC = {
    "dashboard.css": "text/css; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_KEEP = {"Cache-Control": "private, max-age=31536000, immutable"}
_FIGURE_POLICY = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
_PATIENCE = 3
"""Seconds that pages being made have when the dashboard is stopped."""

Number = Annotated[int | None, Query(ge=1, le=2**62)]


class Pages:
    """Templates and static files, read once.

    Parameters
    ----------
    folder : ServerFolder
        Named on every page.
    """

    def __init__(self, folder: ServerFolder) -> None:
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters["ago"] = ago
        self.static = {name: (_HERE / "static" / name).read_bytes() for name in _STATIC}
        self._shared = {
            "folder": str(folder.path),
            "version": __version__,
            "assets": {n: hashlib.sha256(b).hexdigest()[:12] for n, b in self.static.items()},
        }

    def html(self, template: str, values: dict[str, Any], status: int = 200) -> HTMLResponse:
        """A page."""
        found = self._environment.get_template(f"{template}.html.j2")
        text = found.render({**self._shared, **values, "now": datetime.now(UTC)})
        # What a site or plan says may hold halves of characters, which no page can.
        return HTMLResponse(text.encode("utf-8", errors="replace"), status)

    def problem(self, status: int, title: str, text: str) -> HTMLResponse:
        """A page that says why there is no other."""
        values = {"page": "", "title": title, "text": text, "again": status == 503}
        return self.html("problem", values, status)


def make_app(folder: ServerFolder) -> Guard:
    """The ASGI app for one server's folder."""
    source, drawings, html = Source(folder), Drawings(), Pages(folder)
    app = FastAPI(title="FedQANA", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/")
    def overview() -> Response:
        return html.html("overview", pages.overview(source))

    @app.get("/runs")
    def runs() -> Response:
        return html.html("runs", pages.runs(source))

    @app.get("/runs/{run}")
    def run(run: str, round: Number = None) -> Response:
        return html.html("run", run_page.run_page(source, run, round))

    @app.get("/runs/{run}/events")
    def events(run: str, before: Number = None, only: str = "") -> Response:
        return html.html("events", pages.events(source, run, before, only == "warnings"))

    @app.get("/runs/{run}/figures/{name}.svg")
    def figure(run: str, name: str, narrow: bool = False, dark: bool = False) -> Response:
        if name not in FIGURES or run == LATEST:
            raise HTTPException(404)
        with source.open() as excerpts:
            held = source.record(excerpts, run)
        if name not in held.once("figures", shown):
            raise HTTPException(404)
        content = drawings.svg(held, name, narrow, dark)
        return Response(content, headers={**_KEEP, **_FIGURE_POLICY}, media_type="image/svg+xml")

    @app.get("/models")
    def models(run: str | None = None) -> Response:
        return html.html("models", models_page.models(source, run))

    @app.get("/audit")
    def audit(before: Number = None) -> Response:
        return html.html("audit", pages.audit(source, before))

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in _STATIC:
            raise HTTPException(404)
        return Response(html.static[name], headers=_KEEP, media_type=_STATIC[name])

    @app.exception_handler(FedqanaError)
    def told(request: Request, error: FedqanaError) -> Response:
        if isinstance(error, RunNotFound):
            return html.problem(404, "There is no such run", str(error))
        return html.problem(503, "This cannot be shown now", str(error))

    @app.exception_handler(HTTPException)
    def refused(request: Request, error: HTTPException) -> Response:
        return html.problem(error.status_code, "There is no such page", "Choose one from above.")

    @app.exception_handler(RequestValidationError)
    def misread(request: Request, error: RequestValidationError) -> Response:
        return html.problem(400, "This address is not understood", "Choose a page from above.")

    @app.exception_handler(Exception)
    def failed(request: Request, error: Exception) -> Response:
        text = "The reason is in the dashboard's output; this is a bug, please report it with that."
        return html.problem(500, "This page failed", text)

    return Guard(app)


def serve(folder: ServerFolder, port: int, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; ``ready`` is told the address once it is listened on.

    Raises SettingsError where the port is taken and DataNotFound where ``folder`` is no server's.
    """
    folder.settings()
    app = make_app(folder)
    with _listening(port) as own:
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            lifespan="off",
            timeout_graceful_shutdown=_PATIENCE,
        )
        server = uvicorn.Server(config)

        def end(*_: object) -> None:
            server.should_exit = True

        # uvicorn raises what ended it once more when it is done: by then this does nothing more.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
        ready(f"http://{HOST}:{own.getsockname()[1]}/")
        server.run(sockets=[own])


def _listening(port: int) -> socket.socket:
    own = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        own.bind((HOST, port))
        own.listen()  # who asks from now on waits until the first page is made
    except OSError as error:
        own.close()
        if error.errno == errno.EADDRINUSE:
            raise SettingsError(
                f"port {port} is in use; choose another one with --port, e.g. --port {port + 1}"
            ) from error
        raise SettingsError(
            f"cannot listen on port {port} ({error.strerror}); choose another one with --port"
        ) from error
    return own
