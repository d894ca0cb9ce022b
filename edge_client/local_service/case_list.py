"""The cases that a site has learned, page by page, read from the journal as it is written."""

import threading
from dataclasses import dataclass
from pathlib import Path

from common.errors import SettingsError
from edge_client.case_journal import CaseFacts, CaseJournal

DEFAULT_PAGE, LARGEST_PAGE = 100, 1000


@dataclass(frozen=True)
class Page:
    """Some cases; ``next_token`` is empty on the last page, ``total`` counts all pages'."""

    cases: tuple[CaseFacts, ...]
    next_token: str
    total: int


class CaseList:
    """What is in a journal, read again when it grew; from several threads.

    The journal only ever grows, and a record that is being written is not seen yet: no lock.
    """

    def __init__(self, journal: Path) -> None:
        self._path = journal
        self._lock = threading.Lock()
        self._read: tuple[object, tuple[CaseFacts, ...]] = (None, ())

    def all(self) -> tuple[CaseFacts, ...]:
        """Cases in order of arrival, without the forgotten ones; StateDamaged."""
        with self._lock:
            mark = self._mark()
            if mark != self._read[0]:
                found = CaseJournal(self._path, read_only=True).facts() if mark else []
                self._read = (mark, tuple(found))
            return self._read[1]

    def page(self, size: int, token: str) -> Page:
        """The page of ``size`` cases (0 for 100) after the one that gave ``token``.

        SettingsError for a size above 1000, and for a token whose case was forgotten since.
        """
        if size > LARGEST_PAGE:
            raise SettingsError(f"a page has at most {LARGEST_PAGE} cases; ask for fewer")
        cases = self.all()
        start = 0
        if token:
            ids = [case.case_id for case in cases]
            if token not in ids:
                raise SettingsError("this page token is no longer valid; begin at the first page")
            start = ids.index(token) + 1
        end = start + (size or DEFAULT_PAGE)
        following = cases[end - 1].case_id if end < len(cases) else ""
        return Page(cases[start:end], following, len(cases))

    def _mark(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
