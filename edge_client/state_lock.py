"""One process at a time changes a site's state folder."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import StateInUse
from common.files import writing_to

WAIT_SECONDS = 60.0
_LOOK_AGAIN_SECONDS = 0.1


@contextmanager
def state_in_use(state_dir: Path, wait: float = WAIT_SECONDS) -> Iterator[None]:
    """Hold the folder's lock for the block; the system lets go of it when the process ends.

    Parameters
    ----------
    wait : float
        Seconds to wait for another process to finish.

    Raises
    ------
    StateInUse
        Another process holds it for longer.
    StorageFull
        The folder cannot be written.
    """
    path = state_dir / "lock"
    with writing_to(path):
        state_dir.mkdir(parents=True, exist_ok=True)
        stream = path.open("ab")
    give_up = time.monotonic() + wait
    with stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise StateInUse(
                        f"another process is changing the site's state in {state_dir}; wait for "
                        "it to end, then try again"
                    ) from None
            time.sleep(_LOOK_AGAIN_SECONDS)
        yield
