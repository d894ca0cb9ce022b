"""One process at a time changes a site's state folder; nobody looks while it does."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import StateInUse, StorageFull
from common.files import writing_to

WAIT_SECONDS = 60.0
_LOOK_AGAIN_SECONDS = 0.1


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
    with writing_to(path):
        state_dir.mkdir(parents=True, exist_ok=True)
        stream = path.open("rb" if shared else "ab")
    how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    give_up = time.monotonic() + wait
    with stream:
        while True:
            try:
                fcntl.flock(stream, how | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise StateInUse(
                        f"another process is changing the site's state in {state_dir}; wait for "
                        "it to end, then try again"
                    ) from None
            except OSError as error:
                raise StorageFull(
                    f"cannot lock {path}: {error.strerror}; keep the state on a local disk"
                ) from error
            time.sleep(_LOOK_AGAIN_SECONDS)
        yield
