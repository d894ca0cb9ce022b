"""A full disk at the server and at a site: what is lost, and how it goes on."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.deployment.hospitals import Hospitals, eventually, fedqana, hospitals

HEARTBEATS = 75.0
"""Seconds in which every site's heartbeat meets the full disk, and would lapse."""

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root"),
    pytest.mark.timeout(900),
]


@contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[None]:
    path.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path)]
    )
    if mounted.returncode:
        pytest.skip("no right to mount a disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(path: Path) -> Path:
    """Take all the space that is left."""
    file = path / "filler"
    with file.open("wb") as stream:
        try:
            while True:
                stream.write(bytes(65_536))
                stream.flush()
        except OSError:
            pass
    return file


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, data: dict[str, Path]) -> Iterator[Hospitals]:
    root = tmp_path_factory.mktemp("disks")
    with small_disk(root / "home-north", 200), small_disk(root / "disk", 200):
        (root / "server").symlink_to(root / "disk" / "server")
        with hospitals(root) as found:
            found.start_server()
            for site in ("north", "south"):
                found.join(site, data[site])
                found.clients[site].start()
            found.approve("north", "south")
            found.wait_online("north", "south")
            yield found


def test_a_full_disk_at_the_server_stops_the_run_which_goes_on_by_itself(made: Hospitals) -> None:
    made.start_run("full", "--rounds", "4", "--qat-rounds", "0", "--deadline", "60")
    made.wait_step("full", 2, "train", 180)
    filler = fill(made.root / "disk")
    log = made.folder / "runs" / "full" / "log.jsonl"
    eventually("the run's process ends", 180, lambda: made.server.child("flwr-serverapp") is None)
    time.sleep(HEARTBEATS)
    filler.unlink()
    made.wait_online("north", "south", seconds=90)
    made.wait_finished("full", 300)
    listed = json.loads(made.coordinator("models", "list", "--run", "full", "--json").stdout)
    assert [v["name"] for v in listed] == [f"full:{n}" for n in range(1, 5)]
    assert log.exists()


def test_a_full_disk_at_a_site_costs_it_the_round_and_no_case(
    made: Hospitals, tmp_path: Path
) -> None:
    fedqana("data", "make", str(tmp_path), "--lesions", "30", "--seed", "77")
    images = sorted(tmp_path.rglob("*.png"))[:2]
    made.client("north", "learn", str(images[0]), "--diagnosis", "bcc")
    made.start_run("edge", "--rounds", "3", "--qat-rounds", "0", "--deadline", "60")
    made.wait_step("edge", 1, "train", 120)
    filler = fill(made.home("north"))
    refused = made.client("north", "learn", str(images[1]), "--diagnosis", "bcc", check=False)
    assert refused.returncode == 40 and "free some space" in refused.stderr
    assert refused.stderr.count("\n") == 1
    made.wait_for("edge", "north refused", 120, lambda s: "storage-full" in json.dumps(s["sites"]))
    filler.unlink()
    made.client("north", "learn", str(images[1]), "--diagnosis", "bcc")
    made.wait_finished("edge", 240)
    cases = json.loads(made.client("north", "cases", "--json").stdout)
    assert len(cases) == 2
