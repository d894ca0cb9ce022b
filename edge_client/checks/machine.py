"""What the machine has: room on its disks, memory, processors."""

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from common.classes import HAM10000_CLASSES
from common.json_log import KEPT_FILES, ROTATE_BYTES
from edge_client.checks.findings import Check, Outcome, failed, megabytes, ok, warning
from edge_client.policy import read_policy

_PIXEL_BYTES = 64 * 64 * 3
"""Of one case at the default size of images."""
_EXEMPLARS = 100
"""Of a class, at most; docs/edge-client.md."""
_PROGRAM_BYTES = 2_500_000
"""More than the two files of the default network's program take (1.0 MB each)."""
_KEPT_VERSIONS = 5
_NEXT_CASES, _MANY_CASES = 1_000, 20_000
_AUDIT_BYTES = 16 * 2**20
_SCRATCH_BYTES = 50_000_000

_NEEDED_MEMORY = 2_000_000_000
"""Bytes. Measured with the network with all elements: a trainer takes up to 1.5 GB in
training, Flower's node 0.15 GB, service and supervisor 0.15 GB."""


class MachineChecks:
    """Compares what the machine has with what a site needs."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def checks(self) -> Sequence[Check]:
        """In the order in which they are shown."""
        return [
            Check("disk", self.disk),
            Check("temporary", self.temporary),
            Check("memory", self.memory),
            Check("processors", self.processors),
        ]

    def disk(self) -> Outcome:
        """Room in the home folder for what is written next, and for months."""
        version = self._version_bytes()
        cases = _size(self._home / "cases.npz")
        existing = sum(map(_size, self._home.glob("state/versions/*/*")))
        logs = ROTATE_BYTES * (KEPT_FILES + 1)
        least = version + cases + _NEXT_CASES * _PIXEL_BYTES + _AUDIT_BYTES + ROTATE_BYTES
        enough = (
            max(version, (_KEPT_VERSIONS + 1) * version - existing)
            + cases
            + _MANY_CASES * _PIXEL_BYTES
            + 2 * _AUDIT_BYTES
            + logs
        )
        free = shutil.disk_usage(self._home).free
        numbers = (
            f"{megabytes(free)} free in {self._home}; at least {megabytes(least)} are needed (a "
            f"version {megabytes(version)}, {_NEXT_CASES:,} more cases "
            f"{megabytes(_NEXT_CASES * _PIXEL_BYTES)}, logs), better {megabytes(enough)} "
            f"({_KEPT_VERSIONS} versions, {_MANY_CASES:,} cases)"
        )
        if not os.access(self._home, os.W_OK):
            return failed(
                f"{self._home} cannot be written; correct its permissions, or mount it writable"
            )
        if free < least:
            return failed(f"{numbers}: free some space, or move the folder to a larger disk")
        if free < enough:
            return warning(f"{numbers}: free some space soon")
        return ok(f"{megabytes(free)} free, {megabytes(enough)} are enough")

    def _version_bytes(self) -> int:
        """Of the largest version kept, or of one with full exemplars before the first."""
        found: dict[Path, int] = {}
        for path in self._home.glob("state/versions/[!.]*/*"):
            found[path.parent] = found.get(path.parent, 0) + _size(path)
        if found:
            return max(found.values())
        return _PROGRAM_BYTES + _EXEMPLARS * self._n_classes() * _PIXEL_BYTES

    def _n_classes(self) -> int:
        try:
            return len(json.loads((self._home / "site.json").read_bytes())["classes"])
        except (OSError, ValueError, KeyError, TypeError):  # another check says so
            return len(HAM10000_CLASSES)

    def temporary(self) -> Outcome:
        """Room for the temporary files that akida reads and writes programs through."""
        try:
            folder = tempfile.gettempdir()
        except FileNotFoundError:
            return failed("no temporary folder can be written; mend /tmp, or set TMPDIR")
        free = shutil.disk_usage(folder).free
        if free < _SCRATCH_BYTES:
            return failed(
                f"{megabytes(free)} free in {folder}, {megabytes(_SCRATCH_BYTES)} are needed to "
                "load and save programs; free some space, or set TMPDIR"
            )
        return ok(f"{megabytes(free)} free in {folder}")

    def memory(self) -> Outcome:
        """Memory for training beside the service; what the client has counts as available."""
        memory = psutil.virtual_memory()
        own = sum(_resident(process) for process in own_processes(self._home))
        available = memory.available + own
        text = (
            f"{megabytes(available)} of {megabytes(memory.total)} available, the client takes "
            f"{megabytes(_NEEDED_MEMORY)} while it trains"
        )
        if memory.total < _NEEDED_MEMORY:
            return failed(f"{text}: use a machine with 4 GB or more")
        if available < _NEEDED_MEMORY:
            return warning(f"{text}: end other programs, or add memory")
        return ok(text)

    def processors(self) -> Outcome:
        """Cores, threads, and the instructions that TensorFlow is built with."""
        cores = len(os.sched_getaffinity(0))
        if platform.machine() == "x86_64" and not _has_avx():
            return failed(
                "this processor has no AVX, without which TensorFlow does not start; use another "
                "machine (in a virtual one let it see the host's processor)"
            )
        try:
            threads = read_policy(self._home).training.max_threads
        except Exception:  # another check says so
            threads = 0
        found = "1 core" if cores == 1 else f"{cores} cores"
        if threads > cores:
            return warning(
                f"{found}, but policy.toml allows {threads} threads, which wait for each other; "
                f"set max_threads = {cores}, or 0"
            )
        limit = "one thread per core" if not threads else f"at most {threads} for training"
        if cores == 1:
            return warning(f"{found}: answers are slow while the site trains; use two or more")
        return ok(f"{found}, {limit}")


def own_processes(home: Path) -> Iterator[psutil.Process]:
    """Processes of the edge client in this folder that run now."""
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
        except psutil.Error:
            continue
        is_client = any("edge_client." in part or "flower-supernode" in part for part in command)
        if is_client and any(part == str(home) or f"{home}/" in part for part in command):
            yield process


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _has_avx() -> bool:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:  # nobody knows
        return True
    return " avx " in text or "flags" not in text
