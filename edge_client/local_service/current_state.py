"""The state in service, read again when another process has put another one in service."""

import logging
import threading
import time
from collections.abc import Callable, Container
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

from common.errors import (
    FedqanaError,
    ModelNotFound,
    ServiceUnavailable,
    StateDamaged,
    StateInUse,
)
from edge_client.local_service.snapshot import Mark, Snapshot, mark_of
from edge_client.service import EdgeClient
from edge_client.state_lock import state_in_use

log = logging.getLogger("fedqana.local_service")

INSTALLING = "a new version is being installed at this site; try again in a minute"

_LOOK_AGAIN_SECONDS = 5.0
"""A state that could not be read is read again after this, should it have become readable."""


@dataclass(frozen=True)
class _View:
    """A snapshot and how the folder looked then; replaced as a whole."""

    snapshot: Snapshot | None
    mark: Mark | None
    error: FedqanaError | None = None
    seen: float = 0.0


class CurrentState:
    """What answers are computed from; every method may be called from several threads.

    Parameters
    ----------
    state_dir : Path
    held_back : container of str
        Lesions that nothing is learned from.
    device : function
        Returns what is to be held while something is computed on a real device.
    """

    def __init__(
        self,
        state_dir: Path,
        held_back: Container[str],
        device: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self._state_dir = state_dir
        self._held_back = held_back
        self._device = device
        self._view = _View(None, None)
        self._loading = threading.Lock()

    @property
    def last(self) -> Snapshot | None:
        """What the last answer was computed from; None where nothing can be answered."""
        return self._view.snapshot

    @property
    def problem(self) -> str:
        """Why the state on disk is not the one that answers; empty where it is."""
        error = self._view.error
        return "" if error is None else str(error)

    def refresh(self) -> Snapshot | None:
        """Take over what another process put in service, without waiting for it to finish.

        None where nothing can be answered, `problem` says why.
        """
        if self._is_stale():
            with self._loading:
                if self._is_stale():
                    self._load()
        return self._view.snapshot

    def snapshot(self) -> Snapshot:
        """What an answer is computed from now.

        Raises ModelNotFound before the first program, StateDamaged where the state cannot be read
        and no older one was.
        """
        found = self.refresh()
        if found is not None:
            return found
        error = self._view.error
        if error is None:
            raise ServiceUnavailable(INSTALLING)
        raise type(error)(str(error))

    def is_of(self, mark: Mark) -> bool:
        """Whether answers come from the state whose mark this is."""
        return self._view.mark == mark and self._view.error is None

    def publish(self, client: EdgeClient, mark: Mark) -> None:
        """Answer from ``client``'s state from now on; the folder's lock is held."""
        self._view = _View(Snapshot.of(client, self._state_dir), mark)

    def _is_stale(self) -> bool:
        view = self._view
        again = view.error is not None and time.monotonic() - view.seen > _LOOK_AGAIN_SECONDS
        return again or view.mark is None or mark_of(self._state_dir) != view.mark

    def _load(self) -> None:
        """Read the state that is in service, unless a whole one is there and it is changing."""
        with ExitStack() as stack:
            try:
                stack.enter_context(state_in_use(self._state_dir, wait=0.0, shared=True))
            except StateInUse:
                if self._view.snapshot is not None:
                    return
                # Started while a version is being installed: the one before it is whole until the
                # switch. The second mark tells whether it still was at the end.
            mark = mark_of(self._state_dir)
            found, error = self._read()
            if mark_of(self._state_dir) != mark:
                return
            if error is not None and not isinstance(error, ModelNotFound):
                if str(error) != self.problem:
                    log.error("the state in service cannot be read: %s", type(error).__name__)
                found = self._view.snapshot
            before = self._view.snapshot
            # Within the lock: a change by this process comes before or after, never in between.
            self._view = _View(found, mark, error, time.monotonic())
        if found is not None and (before is None or before.model_version != found.model_version):
            log.info("version %s is in service", found.model_version)

    def _read(self) -> tuple[Snapshot | None, FedqanaError | None]:
        try:
            client = EdgeClient(self._state_dir, read_only=True, held_back=self._held_back)
            with self._device():
                return Snapshot.of(client, self._state_dir), None
        except FedqanaError as error:
            return None, error
        except Exception as error:  # whatever it is, answers go on and rollback can be asked for
            log.exception("the state cannot be read")
            return None, StateDamaged(
                f"the site's state cannot be read ({type(error).__name__}); go back with 'fedqana "
                "client rollback' or restore it from a backup"
            )
