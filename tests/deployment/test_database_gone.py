"""A run whose history is in PostgreSQL, which goes away in the middle of it and comes back."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from tests.deployment.hospitals import eventually, hospitals
from tests.history.postgresql import private_cluster, server_programs

PROGRAMS = server_programs()
AWAY = 25.0

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(PROGRAMS is None, reason="no PostgreSQL: run .ci/system-packages.sh"),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    assert PROGRAMS is not None
    with private_cluster(PROGRAMS) as url:
        yield url


def pg_ctl(url: str, *arguments: str) -> None:
    """Stop or start the cluster behind ``url``."""
    folder = Path(str(make_url(url).query["host"]))
    assert PROGRAMS is not None
    options = f"-F -c listen_addresses='' -c unix_socket_directories='{folder}'"
    subprocess.run(
        [
            str(PROGRAMS / "pg_ctl"),
            f"--pgdata={folder / 'data'}",
            f"--log={folder / 'log'}",
            "--wait",
            *((f"--options={options}",) if arguments[0] == "start" else ()),
            *arguments,
        ],
        user="postgres" if os.geteuid() == 0 else None,
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=60,
    )


def test_a_run_goes_on_by_itself_when_its_database_is_back(
    cluster: str, tmp_path: Path, data: dict[str, Path]
) -> None:
    with hospitals(tmp_path, database=cluster) as made:
        made.start_server()
        for site in ("north", "south"):
            made.join(site, data[site])
            made.clients[site].start()
        made.approve("north", "south")
        made.wait_online("north", "south")
        made.start_run("pg", "--rounds", "3", "--qat-rounds", "0", "--deadline", "60")
        made.wait_step("pg", 2, "train", 180)
        pg_ctl(cluster, "stop", "--mode=fast")
        time.sleep(AWAY)
        log = made.folder / "runs" / "pg" / "log.jsonl"
        refused = made.coordinator("rounds", "status", "pg", check=False)
        assert refused.returncode == 42 and refused.stderr.count("\n") == 1
        eventually("the run stops", 60, lambda: '"error"' in log.read_text())
        pg_ctl(cluster, "start")
        made.wait_finished("pg", 200)
        versions = made.coordinator("models", "list", "--run", "pg", "--json").stdout
        assert [f'"pg:{n}"' in versions for n in (1, 2, 3)] == [True] * 3
