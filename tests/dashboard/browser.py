"""Headless Chromium, driven over its debugging protocol: what it loads, shows and complains of."""

import base64
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

PHONE = 390, 844
DESKTOP = 1280, 900
_PATIENCE = 60.0
_PROGRAMS = "chromium", "chromium-browser", "google-chrome"


@dataclass
class Seen:
    """What loading one page brought: addresses asked for, complaints, and how it is laid out."""

    requests: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


class Browser:
    """One tab of a Chromium."""

    def __init__(self, address: str) -> None:
        self._connection: ClientConnection = connect(address, max_size=None)
        self._number = 0
        self._session = ""
        self._seen = Seen()
        self._loaded = False
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def screen(self, size: tuple[int, int], dark: bool = False) -> None:
        """Give the tab a screen; 390 pixels and less are a telephone's."""
        width, height = size
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if width <= PHONE[0] else 1,
            mobile=width <= PHONE[0],
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, address: str) -> Seen:
        """Load a page with all its images; what that brought."""
        self._go("about:blank")  # what the page before still asks for is not this one's
        self._seen = Seen()
        self._go(address)
        self.script("Promise.all([...document.images].map(i => i.decode()))")
        return self._seen

    def _go(self, address: str) -> None:
        self._loaded = False
        self._call("Page.navigate", url=address)
        give_up = time.monotonic() + _PATIENCE
        while not self._loaded:
            assert time.monotonic() < give_up, f"{address} does not load"
            self._receive(give_up)

    def script(self, expression: str) -> Any:
        """The value of a JavaScript expression within the page."""
        found = self._call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def picture(self, file: Path) -> None:
        """Write the whole page as a PNG file."""
        shot = self._call("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._connection.send(json.dumps(message))
        give_up = time.monotonic() + _PATIENCE
        while True:
            answer = self._receive(give_up)
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result

    def _receive(self, give_up: float) -> dict[str, Any]:
        text = self._connection.recv(max(0.0, give_up - time.monotonic()))
        message: dict[str, Any] = json.loads(text)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, said: dict[str, Any]) -> None:
        match method:
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                self._seen.requests.append(said["request"]["url"])
            case "Network.loadingFailed":
                self._seen.failures.append(said["errorText"])
            case "Log.entryAdded":
                self._seen.complaints.append(f"{said['entry']['level']}: {said['entry']['text']}")
            case "Runtime.exceptionThrown":
                self._seen.complaints.append(said["exceptionDetails"]["text"])
            case "Runtime.consoleAPICalled":
                self._seen.complaints.append(f"console.{said['type']}")


def chromium() -> str | None:
    """The program, where it is installed."""
    return next((found for name in _PROGRAMS if (found := shutil.which(name))), None)


@contextmanager
def browsing() -> Iterator[Browser]:
    """A browser; the test is skipped where there is none."""
    program = chromium()
    if program is None:
        pytest.skip("no Chromium: install Debian's package chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        process = subprocess.Popen(
            [
                program,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--no-first-run",
                "--hide-scrollbars",
                "--remote-debugging-port=0",
                f"--user-data-dir={home}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            browser = Browser(_address(process, Path(home) / "DevToolsActivePort"))
            yield browser
            browser.close()
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _address(process: subprocess.Popen[bytes], file: Path) -> str:
    give_up = time.monotonic() + _PATIENCE
    while True:
        lines = file.read_text().splitlines() if file.exists() else []
        if len(lines) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        assert process.poll() is None, "Chromium ended at once"
        assert time.monotonic() < give_up, "Chromium does not start"
        time.sleep(0.1)
