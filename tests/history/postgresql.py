"""A private PostgreSQL cluster made of Debian's server programs, reached by a Unix socket only."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def server_programs() -> Path | None:
    """The folder of the newest installed server's programs."""
    folders = [f.parent for f in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(folders, key=lambda folder: int(folder.parent.name), default=None)


@contextmanager
def private_cluster(programs: Path) -> Iterator[str]:
    """Run a fresh cluster and give the URL of its maintenance database."""
    # PostgreSQL refuses to run as root; the package brings a user of its own.
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    # Not pytest's folder: it is closed to other users, and a socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="fedqana-pg-"))
    if os.geteuid() == 0:
        shutil.chown(folder, user)
    cluster = folder / "data"

    def run(*command: str) -> None:
        done = subprocess.run(
            command,
            user=user if os.geteuid() == 0 else None,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout

    try:
        run(
            str(programs / "initdb"),
            f"--pgdata={cluster}",
            "--username=fedqana",
            "--auth=trust",
            "--encoding=UTF8",
            "--no-sync",
        )
        # -F: no fsync, these databases live for seconds.
        settings = f"-F -c listen_addresses='' -c unix_socket_directories='{folder}'"
        run(
            str(programs / "pg_ctl"),
            f"--pgdata={cluster}",
            f"--log={folder / 'log'}",
            f"--options={settings}",
            "--wait",
            "start",
        )
        try:
            yield f"postgresql+psycopg://fedqana@/postgres?host={folder}"
        finally:
            run(str(programs / "pg_ctl"), f"--pgdata={cluster}", "--mode=immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
