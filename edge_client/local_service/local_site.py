"""A site as its local service sees it: answers from a whole state, changes made one at a time.

The trainer, another process, installs versions under the state folder's lock, for seconds to
minutes. Answers go on from the last whole state meanwhile; changes wait for their turn.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from common.akida_runtime import available_device
from common.errors import (
    DataNotFound,
    DataUnfit,
    ServiceUnavailable,
    StateInUse,
    UnknownLabel,
)
from common.files import sha256_of
from edge_client.case_journal import LabelledCase
from edge_client.local_service.added_classes import AddedClasses
from edge_client.local_service.case_list import CaseList
from edge_client.local_service.current_state import INSTALLING, CurrentState
from edge_client.local_service.pictures import prepared
from edge_client.local_service.site_facts import SiteFacts
from edge_client.local_service.snapshot import Answer, Mark, Snapshot, image_size_of, mark_of
from edge_client.service import EdgeClient
from edge_client.state_lock import state_in_use
from edge_client.versions import VersionFolder

_SLICE_SECONDS = 0.5
_LONGEST_ID = 128


@dataclass(frozen=True)
class Learned:
    """What became of a case, see LearnResponse in the .proto."""

    case_id: str
    learned: bool
    diagnosis: str


class LocalSite:
    """Answers and learns for one site; every method may be called from several threads.

    Parameters
    ----------
    state_dir : Path
        Holds ``current``, ``versions/``, ``cases.journal`` and ``lock``.
    facts : SiteFacts
    """

    def __init__(self, state_dir: Path, facts: SiteFacts) -> None:
        self._state_dir = state_dir
        self._facts = facts
        self._versions = VersionFolder(state_dir)
        self._added = AddedClasses(state_dir)
        self.cases = CaseList(state_dir / "cases.journal")
        self.state = CurrentState(state_dir, facts.lesions, self._device)
        self._changing = threading.Lock()
        self._writer: tuple[EdgeClient, Mark] | None = None
        self._closing = False
        # Akida does not say whether its models bear several threads. Its software backend holds
        # the interpreter's lock while it computes, so taking turns costs nothing.
        self._predicting = threading.Lock()

    # -- answers -------------------------------------------------------------------------------

    def classify(self, content: bytes) -> tuple[Answer, Snapshot]:
        """The answer to an encoded picture, and the state that gave it.

        Raises DataUnreadable, and what `CurrentState.snapshot` raises.
        """
        snapshot = self.state.snapshot()
        image = prepared(content, snapshot.image_size, self._facts.crop)
        with self._predicting:
            scores = snapshot.scores(image)
        return snapshot.answer(scores), snapshot

    @property
    def is_installing(self) -> bool:
        """Whether another process is changing the state at this moment."""
        if self._changing.locked():
            return False
        try:
            with state_in_use(self._state_dir, wait=0.0, shared=True):
                return False
        except StateInUse:
            return not self._changing.locked()

    def codes(self) -> tuple[str, ...]:
        """Class codes that may be learned: of the map, the state in service, and added ones."""
        snapshot = self.state.last
        known = () if snapshot is None else snapshot.codes
        return tuple(dict.fromkeys((*self._facts.codes, *known, *self._added.codes)))

    # -- changes -------------------------------------------------------------------------------

    def learn(
        self, content: bytes, code: str, case_id: str, lesion_id: str, patience: float
    ) -> tuple[Learned, Snapshot]:
        """Learn an encoded picture; durable when it returns, and the next answer knows it.

        Parameters
        ----------
        code : str
            One of `codes`, else UnknownLabel.
        case_id, lesion_id : str
            Empty for the SHA-256 of ``content``, and for ``case_id``.
        patience : float
            Seconds to wait for another process, then ServiceUnavailable.

        Raises
        ------
        DataUnfit
            The lesion or picture is held back to judge programs by, or an id is not usable.
        """
        case_id = _usable(case_id or sha256_of(content), "case id")
        lesion_id = _usable(lesion_id or case_id, "lesion id")
        size = self.state.snapshot().image_size
        self._require_code(code)
        image = prepared(content, size, self._facts.crop)
        if self._facts.are_held_back(lesion_id, image):
            raise DataUnfit(
                "this lesion is held back to judge programs by, so nothing is learned from it; "
                "learn from cases of other lesions"
            )
        with self._change(patience) as client:
            is_new = case_id not in client.journal
            if is_new:
                now = image_size_of(client)
                if now != size:  # another program came while this waited
                    image = prepared(content, now, self._facts.crop)
                round_number = self._newest_round()
                with self._device():
                    client.learn(LabelledCase(case_id, lesion_id, code, round_number, image))
                client.save()
            kept = client.journal.case(case_id)
        return Learned(case_id, is_new, "" if kept is None else kept.code), self.state.snapshot()

    def _newest_round(self) -> int:
        """The round of the newest version: after going back to an older one, cases are later still.

        With the older one's round, the newer versions would be taken to have learned them.
        """
        return max(self._versions.report(name).round for name in self._versions.names())

    def correct(self, case_id: str, code: str | None, patience: float) -> tuple[bool, Snapshot]:
        """Give a learned case another label, or with None forget it; False if nothing changes.

        Raises DataNotFound for a case that was never learned here, UnknownLabel, and
        ServiceUnavailable as `learn`.
        """
        self.state.snapshot()
        if code is not None:
            self._require_code(code)
        with self._change(patience) as client:
            if case_id not in client.journal:
                raise DataNotFound("no case of this id was learned at this site; list its cases")
            with self._device():
                changed = client.correct(case_id, code)
        return changed, self.state.snapshot()

    def rollback(self, patience: float) -> Snapshot:
        """Return to the last version with another program; ModelNotFound where there is none.

        Works on a damaged version too. ServiceUnavailable as `learn`.
        """
        self._versions.require_current()
        with self._change(patience) as client, self._device():
            client.rollback()
        return self.state.snapshot()

    def add_class(self, code: str) -> bool:
        """Allow a code in `learn` and `correct`; False where it was allowed already.

        Durable when it returns. Raises UnknownLabel for what cannot be a code.
        """
        return code not in self.codes() and self._added.add(code)

    def close(self) -> None:
        """Let the change under way finish and refuse those that wait."""
        self._closing = True
        with self._changing:
            self._writer = None

    # -- within ---------------------------------------------------------------------------------

    @contextmanager
    def _change(self, patience: float) -> Iterator[EdgeClient]:
        """The site's client to change something with; afterwards answers know of it."""
        give_up = time.monotonic() + patience
        while not self._changing.acquire(timeout=_slice_before(give_up)):
            self._require_time(give_up)
        try:
            with self._folder_lock(give_up):
                client, mark = self._client()
                try:
                    yield client
                    mark = mark_of(self._state_dir)
                    if not self.state.is_of(mark):
                        self.state.publish(client, mark)
                finally:
                    # After a failure half-way only what is on disk counts.
                    unchanged = mark_of(self._state_dir) == mark
                    self._writer = (client, mark) if unchanged else None
        finally:
            self._changing.release()

    @contextmanager
    def _folder_lock(self, give_up: float) -> Iterator[None]:
        with ExitStack() as stack:
            while True:
                self._require_open()
                try:
                    wait = _slice_before(give_up)
                    stack.enter_context(state_in_use(self._state_dir, wait=wait))
                    break
                except StateInUse:
                    self._require_time(give_up)
            yield

    def _require_time(self, give_up: float) -> None:
        self._require_open()
        if time.monotonic() >= give_up:
            raise ServiceUnavailable(INSTALLING)

    def _require_open(self) -> None:
        if self._closing:
            raise ServiceUnavailable("the service is being stopped; try again when it runs again")

    def _client(self) -> tuple[EdgeClient, Mark]:
        """The client of the last change where nothing has changed since, else a new one."""
        if self._writer is not None and self._writer[1] == mark_of(self._state_dir):
            return self._writer
        self._writer = None
        client = EdgeClient(self._state_dir, held_back=self._facts.lesions)
        return client, mark_of(self._state_dir)

    def _device(self) -> AbstractContextManager[object]:
        """Held while a change computes on a real device, which answers share with it."""
        return self._predicting if available_device().real else nullcontext()

    def _require_code(self, code: str) -> None:
        known = self.codes()
        if code not in known:
            raise UnknownLabel(
                f"{code!r} is no class of this site ({', '.join(known)}); correct it, or add the "
                "class first ('fedqana client add-class')"
            )


def _slice_before(give_up: float) -> float:
    """Seconds to wait before looking whether the service is being stopped."""
    return min(_SLICE_SECONDS, max(give_up - time.monotonic(), 0.0))


def _usable(name: str, what: str) -> str:
    if len(name) > _LONGEST_ID or not name.isprintable() or name != name.strip():
        raise DataUnfit(
            f"the {what} is longer than {_LONGEST_ID} characters, begins or ends with a space, or "
            "has characters that cannot be printed; give another one"
        )
    return name
