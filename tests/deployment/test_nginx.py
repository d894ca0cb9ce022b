"""Debian's nginx with the configuration that `fedqana server init` writes, in front of a server."""

import os
import shutil
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployment.hospitals import Hospitals, eventually, hospitals

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")

pytestmark = [
    pytest.mark.skipif(NGINX is None, reason="no nginx: install nginx-light"),
    pytest.mark.timeout(900),
]

_MAIN = """
daemon off;
pid {root}/nginx.pid;
error_log {root}/nginx.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {root}/body;
    proxy_temp_path {root}/proxy;
    fastcgi_temp_path {root}/f;
    uwsgi_temp_path {root}/u;
    scgi_temp_path {root}/s;
    include {folder}/nginx.conf;
}}
"""


@pytest.fixture(scope="module")
def behind_nginx(
    tmp_path_factory: pytest.TempPathFactory, data: dict[str, Path]
) -> Iterator[Hospitals]:
    root = tmp_path_factory.mktemp("nginx")
    with hospitals(root) as made:
        settings = made.folder / "fedqana.toml"
        text = settings.read_text().replace('kind = "embedded"', 'kind = "proxy"')
        settings.write_text(text)
        (root / "main.conf").write_text(_MAIN.format(root=root, folder=made.folder))
        nginx = start_nginx(root)
        try:
            made.start_server()
            made.join("north", data["north"])
            made.clients["north"].start()
            made.approve("north")
            yield made
        finally:
            subprocess.run(["pkill", "-TERM", "-F", str(root / "nginx.pid")], check=True)
            nginx.wait(10)


def start_nginx(root: Path) -> "subprocess.Popen[bytes]":
    """nginx in the foreground of its own session."""
    assert NGINX is not None
    return subprocess.Popen(
        [NGINX, "-c", str(root / "main.conf"), "-p", str(root)], start_new_session=True
    )


def test_a_round_passes_through_it(behind_nginx: Hospitals) -> None:
    behind_nginx.wait_online("north")
    behind_nginx.start_run("proxied", "--rounds", "1", "--qat-rounds", "0")
    behind_nginx.wait_finished("proxied")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/list-runs",
        "/v1/runtime/acquire-task",
        "/v1/fleet/../control/list-runs",
        "/v1/fleet/%2e%2e/control/list-runs",
        "/v1/fleet/..%2fcontrol/list-runs",
        "/v1//control/list-runs",
        "/v1/fleet//../control/list-runs",
        "/fedqana/v1/../../v1/control/list-runs",
        "/",
    ],
)
def test_everything_else_is_refused(behind_nginx: Hospitals, path: str) -> None:
    context = ssl.create_default_context(cafile=str(behind_nginx.folder / "tls" / "ca.crt"))
    url = f"https://{behind_nginx.address}{path}"
    request = urllib.request.Request(url, data=b"", method="POST")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10, context=context)
    assert refused.value.code in (400, 403, 404)
    assert "grpc" not in str(refused.value.headers) and b"run" not in refused.value.read().lower()


def test_the_site_is_back_after_a_restart_of_nginx(behind_nginx: Hospitals) -> None:
    pid = int((behind_nginx.root / "nginx.pid").read_text())
    subprocess.run(["kill", "-HUP", str(pid)], check=True)
    time.sleep(2)
    eventually("online", 60, lambda: behind_nginx.sites()["north"]["online"])


def test_the_site_is_back_after_nginx_was_killed(behind_nginx: Hospitals) -> None:
    root = behind_nginx.root
    os.killpg(int((root / "nginx.pid").read_text()), signal.SIGKILL)
    nginx = start_nginx(root)
    behind_nginx.start_run("again", "--rounds", "1", "--qat-rounds", "0")
    behind_nginx.wait_finished("again")
    assert nginx.poll() is None
