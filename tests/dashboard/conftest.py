"""Servers' folders, filled once for all tests of a module's process, and dashboards of them."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.server_settings import ServerFolder
from tests.dashboard.browser import Browser, browsing
from tests.dashboard.filled import fill, fill_hostile, make_server
from tests.dashboard.serving import Dashboard, dashboard


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> ServerFolder:
    """A server with runs, sites, versions and a trail; nothing changes it."""
    folder = make_server(tmp_path_factory.mktemp("filled") / "server")
    fill(folder)
    return folder


@pytest.fixture(scope="session")
def shown(filled: ServerFolder) -> Iterator[Dashboard]:
    """The dashboard of `filled`."""
    with dashboard(filled) as found:
        yield found


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """The dashboard of a server in which every text is markup or very long."""
    folder = make_server(tmp_path_factory.mktemp("hostile") / "server")
    fill_hostile(folder)
    with dashboard(folder) as found:
        yield found


@pytest.fixture(scope="session")
def blank(tmp_path_factory: pytest.TempPathFactory) -> ServerFolder:
    """A server with nothing in it yet, to be copied."""
    return make_server(tmp_path_factory.mktemp("blank") / "server")


@pytest.fixture
def fresh(blank: ServerFolder, tmp_path: Path) -> ServerFolder:
    """A server of one test's own, nothing in it yet."""
    shutil.copytree(blank.path, tmp_path / "server")
    return ServerFolder(tmp_path / "server")


@pytest.fixture(scope="session")
def changing(
    blank: ServerFolder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ServerFolder, Dashboard]]:
    folder = ServerFolder(tmp_path_factory.mktemp("changing") / "server")
    shutil.copytree(blank.path, folder.path)
    with dashboard(folder) as found:
        yield folder, found


@pytest.fixture
def own(blank: ServerFolder, changing: tuple[ServerFolder, Dashboard]) -> ServerFolder:
    """A server of one test's own, nothing in it yet; `own_shown` shows it."""
    folder, _ = changing
    shutil.rmtree(folder.path)
    shutil.copytree(blank.path, folder.path)
    return folder


@pytest.fixture
def own_shown(own: ServerFolder, changing: tuple[ServerFolder, Dashboard]) -> Dashboard:
    """The dashboard of `own`: one process for all tests, as a server may change all it has."""
    return changing[1]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A browser; tests with it are skipped where there is none."""
    with browsing() as found:
        yield found
