"""What runs on the machine: the local service, Flower's node, and the program on its device."""

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from common import __version__
from common.errors import BundleDamaged, ServiceUnavailable, StateDamaged, StateInUse
from edge_client.checks.findings import Check, Outcome, failed, not_checked, ok, warning
from edge_client.checks.limits import ProcessDied, in_own_process
from edge_client.checks.machine import own_processes
from edge_client.checks.site import version_in_service
from edge_client.client_folder import ClientFolder
from edge_client.site import SiteFolder
from edge_client.versions import VersionFolder

_DEVICE_SECONDS = 8.0
_BRAINCHIP = "0x1e7c"
_HANGS = failed(
    f"the program was not loaded in {_DEVICE_SECONDS:.0f} s; try again, and look at the device "
    "where there is one"
)
_NODES = ("akida[0-9]*", "akd1500_*")


class ProgramChecks:
    """Asks what runs, and tries out the program in service where nothing is disturbed by it."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def checks(self) -> Sequence[Check]:
        """In the order in which they are shown."""
        return [
            Check("service", self.service, 6.0),
            Check("node", self.node),
            Check("akida", self.akida, _DEVICE_SECONDS + 1, _HANGS),
        ]

    def service(self) -> Outcome:
        """The local service answers, where it runs."""
        from edge_client.local_service.client import LocalServiceClient
        from edge_client.local_service.settings import own_address

        address = own_address(self._home)
        try:
            with LocalServiceClient(address, look_seconds=5.0) as client:
                status = client.status()
        except ServiceUnavailable as error:
            if _listens(address):
                return failed(str(error))
            return warning("it does not run, so nothing is classified: 'fedqana client start'")
        answers = status.HasField("state")
        if not answers and not (SiteFolder(self._home).state / "current").exists():
            return ok("it answers; no version is in service yet")
        if status.problem:
            what = "it answers from an older state" if answers else "it runs but answers nothing"
            return failed(f"{what}: {status.problem}")
        if status.software != __version__:
            return warning(
                f"it runs fedqana {status.software}, installed is {__version__}; restart the client"
            )
        if not answers:
            return ok("it answers; the first version is being installed")
        return ok(f"it answers with version {status.state.model_version}")

    def node(self) -> Outcome:
        """The port of Flower's node is free, or its own."""
        port = ClientFolder(self._home).config().flower.port
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except PermissionError:
                return failed(f"port {port} is for the system; set flower.port in client.toml")
            except OSError:
                return self._used(port)
        return ok(f"port {port} is free; Flower's node does not run")

    def _used(self, port: int) -> Outcome:
        ids = {
            c.pid
            for c in psutil.net_connections(kind="tcp")
            if c.status == psutil.CONN_LISTEN and c.laddr.port == port
        }
        own = {process.pid for process in own_processes(self._home)}
        if ids & own:
            return ok(f"Flower's node runs on port {port}")
        return failed(
            f"port {port} is used by {', '.join(sorted(map(_called, ids))) or 'another program'}; "
            "end it, or set another flower.port in client.toml and restart the client"
        )

    def akida(self) -> Outcome:
        """Where programs run, and that the one in service maps and computes there."""
        state = SiteFolder(self._home).state
        nodes = [path for name in _NODES for path in Path("/dev").glob(name)]
        version = version_in_service(state)
        if nodes and version is not None and next(own_processes(self._home), None) is not None:
            report = VersionFolder(state).report(version)  # a second process would disturb it
            return ok(f"{report.backend}, as the running client found it with version {version}")
        try:
            found = in_own_process(_DEVICE_SECONDS, try_out, state)
        except TimeoutError:
            return _HANGS
        except ProcessDied as error:
            return failed(
                f"akida ended its process ({error}) over the program in service; restore the state "
                "from a backup, or go back with 'fedqana client rollback'"
            )
        except StateInUse:
            return not_checked("another process is changing the state")
        if not found["real"]:
            lost = _device_without_driver(nodes)
            if lost:
                return warning(f"{found['backend']}: {lost}")
        if not found["fits"]:
            where = failed if found["real"] else warning
            return where(f"{found['backend']}; the program does not map: {found['reason']}")
        return ok(f"{found['backend']}{found['program']}")


def try_out(state: Path) -> dict[str, Any]:
    """Load what is in service, map it onto a virtual chip, and compute one image with it.

    Mapped onto the real device where there is one. Raises StateDamaged, ModelDoesNotFit,
    DeviceError.
    """
    from common.akida_runtime import LearningProgram, available_device
    from edge_client.service import EdgeSettings
    from edge_client.state_lock import state_in_use

    device = available_device()
    found: dict[str, Any] = {"backend": device.name, "real": device.real, "fits": True}
    versions = VersionFolder(state)
    with state_in_use(state, wait=3.0, shared=True):
        version = version_in_service(state)
        if version is None:
            return {**found, "program": "; no program is in service yet"}
        report, learned = versions.report(version), versions.learned(version).file
        content = versions.read(version, learned)
    try:
        program = LearningProgram.from_bytes(content, report.seed).complete()
    except BundleDamaged as error:
        raise StateDamaged(
            f"version {version} is damaged ({error}); restore it from a backup or go back with "
            "'fedqana client rollback'"
        ) from error
    chip = EdgeSettings().device
    fit = program.fit_report(chip)
    program.predict_potentials(np.zeros((1, *program.input_shape), np.uint8))
    maps = f"; version {version} maps onto {chip} and computes"
    return {**found, "fits": fit.fits, "reason": fit.reason, "program": maps}


def _device_without_driver(nodes: Sequence[Path]) -> str:
    """Why an Akida device that is there is not used; "" where there is none."""
    if nodes:
        return (
            f"akida finds no device although there is {nodes[0]}; check who may use it (udev rule, "
            "DeviceAllow in the systemd unit) and that no other program does"
        )
    for vendor in Path("/sys/bus/pci/devices").glob("*/vendor"):
        try:
            if vendor.read_text().strip() == _BRAINCHIP:
                return "an Akida card is in the machine without its driver; install it"
        except OSError:
            continue
    return ""


def _listens(address: str) -> bool:
    """Whether something takes connections at an address of the local service."""
    path = Path(address.removeprefix("unix:"))
    try:
        if path.is_absolute():
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(1.0)
                probe.connect(str(path))
        else:
            host, _, port = address.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), 1.0).close()
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _called(process: int | None) -> str:
    if process is None:
        return "a process of another user"
    try:
        return f"{psutil.Process(process).name()} (process {process})"
    except psutil.Error:
        return f"process {process}"
