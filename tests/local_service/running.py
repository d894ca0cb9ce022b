"""A site's home folder with a tiny program, and the real service for it in a process of its own."""

import io
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.classes import ClassMap
from common.data.cases import Cases
from common.errors import ServiceUnavailable
from edge_client.local_service import fedqana_edge_pb2 as pb
from edge_client.local_service.client import LocalServiceClient
from edge_client.local_service.settings import TlsFiles
from edge_client.service import EdgeClient, EdgeSettings
from edge_client.site import SiteData, SiteFolder
from tests.akida_runtime.tiny import SIZE
from tests.edge_client.cases import CLASSES, arriving, some_cases
from tests.edge_client.test_service import STORE, install

ROOT = Path(__file__).parents[2]
HELD_BACK = some_cases(3, seed=50)
CASES = arriving(4, seed=60, round_number=1)
PICTURES = some_cases(5, seed=70, classes=4).images


def png(image: NDArray[np.uint8]) -> bytes:
    """An image without loss: prepared again it has the same pixels."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def make_home(home: Path, installed: bool = True) -> Path:
    """A site's folder, with version 1 in service unless told; returns its state folder."""
    shutil.copytree(Path(_template(installed).name), home)
    return home / "state"


@lru_cache(maxsize=2)
def _template(installed: bool) -> "tempfile.TemporaryDirectory[str]":
    """What homes are copied from: to install a version takes a second."""
    folder = tempfile.TemporaryDirectory()
    home, nothing = Path(folder.name), Cases.empty(SIZE)
    site = SiteData(
        name="site-1",
        classes=ClassMap(CLASSES),
        train=nothing,
        validation=HELD_BACK,
        test=nothing,
        arrivals=nothing,
        arrival_rounds=np.zeros(0, np.int64),
    )
    SiteFolder(home).write(site)
    if installed:
        install(lenient(home / "state"), 1, STORE)
    return folder


def lenient(state: Path) -> EdgeClient:
    """A client that puts every program into service."""
    return EdgeClient(state, EdgeSettings(tolerance=1.0))


class Service:
    """The service of one home folder, in a process of its own."""

    def __init__(self, home: Path, *options: str, address: str = "", tls: Any = None) -> None:
        self.address = address or f"unix:{home.absolute() / 'service.sock'}"
        self.tls: TlsFiles | None = tls
        command = [sys.executable, "-m", "edge_client.local_service", str(home), *options]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def client(self, **seconds: float) -> LocalServiceClient:
        """A new channel to the service."""
        return LocalServiceClient(self.address, self.tls, **seconds)

    def wait(self) -> "Service":
        """Wait until it answers; returns itself."""
        give_up = time.monotonic() + 60
        while True:
            try:
                with self.client() as client:
                    client.status()
                return self
            except ServiceUnavailable:
                assert self.process.poll() is None, self.log()
                assert time.monotonic() < give_up
                time.sleep(0.1)

    def log(self) -> str:
        """What the process wrote; it has ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def running(home: Path, *options: str, **how: Any) -> Iterator[Service]:
    """The service, answering; killed at the end where it still runs."""
    service = Service(home, *options, **how)
    try:
        yield service.wait()
    finally:
        if service.process.poll() is None:
            service.end(signal.SIGKILL)
        assert service.process.stderr is not None
        service.process.stderr.close()


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def scores_of(response: pb.ClassifyResponse) -> dict[str, float]:
    """Scores by class code."""
    return {score.code: score.score for score in response.scores}


def decided(client: EdgeClient, image: NDArray[np.uint8]) -> dict[str, float]:
    """What `EdgeClient.decide` says, in the same form: classes without an answer left out."""
    codes = tuple(dict.fromkeys((*CLASSES, *client.classes)))
    row = client.decide(image[None], codes)[0]
    return {c: float(s) for c, s in zip(codes, row, strict=True) if np.isfinite(s)}
