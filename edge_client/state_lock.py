"""One process at a time changes a site's state folder; nobody looks while it does."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.file_lock import file_lock

WAIT_SECONDS = 60.0


@contextmanager
def state_in_use(
    state_dir: Path, wait: float = WAIT_SECONDS, *, shared: bool = False
) -> Iterator[None]:
    """Hold the folder's lock for the block; the system lets go of it when the process ends.

    Parameters
    ----------
    wait : float
        Seconds to wait for another process to finish.
    shared : bool
        For looking only: others may look at the same time, and nothing is written, so a folder
        in which nothing was ever changed has no lock to wait for.

    Raises
    ------
    StateInUse
        Another process holds it for longer.
    StorageFull
        The folder cannot be written, or its file system has no locks.
    """
    path = state_dir / "lock"
    if shared and not path.exists():
        yield
        return
    busy = (
        f"another process is changing the site's state in {state_dir}; wait for it to end, then "
        "try again"
    )
    with file_lock(path, wait, busy, shared=shared):
        yield
