"""What the dashboard answers and what it refuses, over real HTTP."""

import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from server.server_settings import ServerFolder
from tests.dashboard.filled import FINISHED, make_server
from tests.dashboard.serving import Dashboard, dashboard, free_port, run_page, start

HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/", "/audit", "/nowhere"])
def test_any_method_but_get_is_refused(shown: Dashboard, method: str, path: str) -> None:
    page = shown.ask(method, path, [("Host", "localhost")])
    assert page.status == 405
    assert page.headers["allow"] == "GET"


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:1234", "LocalHost:80", "127.0.0.1", "127.0.0.1:8080", "[::1]:9"],
)
def test_a_name_of_this_machine_is_answered(shown: Dashboard, host: str) -> None:
    assert shown.ask("GET", "/audit", [("Host", host)]).status == 200


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        [""],
        ["evil.example"],
        ["localhost.evil.example"],
        ["127.0.0.1.evil.example"],
        ["evil.example:8080"],
        ["localhost:8080@evil.example"],
        ["192.168.0.7:8080"],
        ["0.0.0.0"],
        ["localhost", "evil.example"],
        ["localhost:"],
        ["::1"],
    ],
)
def test_another_host_is_refused_and_told_nothing(shown: Dashboard, hosts: list[str]) -> None:
    page = shown.ask("GET", "/", [("Host", host) for host in hosts])
    assert page.status == 400
    assert "rosendahl" not in page.text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/models", 200),
        ("/nowhere", 404),
        ("/runs/none", 404),
        ("/audit?before=x", 400),
    ],
)
def test_every_answer_forbids_what_it_does_not_need(
    shown: Dashboard, path: str, status: int
) -> None:
    page = shown.get(path)
    assert page.status == status
    assert HEADERS.items() <= page.headers.items()
    assert "server" not in page.headers


def test_a_refusal_has_the_headers_too(shown: Dashboard) -> None:
    page = shown.ask("GET", "/", [("Host", "evil.example")])
    assert HEADERS.items() <= page.headers.items()


def test_no_page_describes_the_interface(shown: Dashboard) -> None:
    for path in ("/docs", "/redoc", "/openapi.json", "/static/../app.py", "/static/app.py"):
        assert shown.get(path).status == 404


def test_it_listens_on_loopback_only(shown: Dashboard) -> None:
    found = psutil.Process(shown.process.pid).net_connections()
    listening = {c.laddr for c in found if c.status == psutil.CONN_LISTEN}
    assert {(address.ip, address.port) for address in listening} == {("127.0.0.1", shown.port)}


def test_it_says_where_it_is(shown: Dashboard) -> None:
    assert f"http://127.0.0.1:{shown.port}/" in shown.first_line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_in_good_order(fresh: ServerFolder, number: int) -> None:
    with dashboard(fresh) as found:
        assert found.get("/").status == 200
        assert found.stop(number) == 0


def refused(path: Path, port: int) -> tuple[int, str]:
    process = start(path, port)
    _, errors = process.communicate(timeout=60)
    assert isinstance(process, subprocess.Popen)
    return process.returncode, errors


def test_a_port_in_use_is_told_in_one_line(shown: Dashboard, filled: ServerFolder) -> None:
    status, errors = refused(filled.path, shown.port)
    assert status == 60
    assert errors.splitlines() == [
        f"fedqana: port {shown.port} is in use; choose another one with --port, e.g. --port "
        f"{shown.port + 1}"
    ]


def test_a_folder_of_no_server_is_refused(tmp_path: Path) -> None:
    status, errors = refused(tmp_path, free_port())
    assert status == 10
    assert "is not a server's folder" in errors
    assert not list(tmp_path.iterdir())


def test_figures_and_static_files_may_be_kept(shown: Dashboard) -> None:
    for path in (run_page(FINISHED, "/figures/loss.svg?v=1"), "/static/dashboard.css"):
        page = shown.get(path)
        assert page.status == 200
        assert "immutable" in page.headers["cache-control"]


def test_settings_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    folder = make_server(tmp_path / "server")
    with dashboard(folder) as found:
        (folder.path / "fedqana.toml").write_text("address = ")
        page = found.get("/")
        assert page.status == 503
        assert "is not readable TOML" in page.text
