"""The service of a home with a tiny program, and a channel to it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_client.local_service.client import LocalServiceClient
from tests.local_service.running import (
    Service,
    make_home,
    running,
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    make_home(tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def service(home: Path) -> Iterator[Service]:
    with running(home, "--write-wait", "2") as found:
        yield found


@pytest.fixture
def client(service: Service) -> Iterator[LocalServiceClient]:
    with service.client() as found:
        yield found
