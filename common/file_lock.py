"""Locks between processes on one machine: the system lets go of them when a process ends."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import StateInUse, StorageFull
from common.files import writing_to

_LOOK_AGAIN_SECONDS = 0.1


@contextmanager
def file_lock(path: Path, wait: float, busy: str, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock for the block.

    Parameters
    ----------
    path : Path
        The lock's file, made where it does not exist.
    wait : float
        Seconds to wait for another process to finish.
    busy : str
        What StateInUse says where another process holds the lock for longer.
    shared : bool
        Others may hold it shared at the same time; then the file must exist.

    Raises
    ------
    StateInUse
        Another process holds it for longer.
    StorageFull
        The folder cannot be written, or its file system has no locks.
    """
    with writing_to(path):
        if not shared:
            path.parent.mkdir(parents=True, exist_ok=True)
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
                    raise StateInUse(busy) from None
            except OSError as error:
                raise StorageFull(
                    f"cannot lock {path}: {error.strerror}; keep it on a local disk"
                ) from error
            time.sleep(_LOOK_AGAIN_SECONDS)
        yield
