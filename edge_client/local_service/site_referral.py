"""The referral rule that holds at a site: its policy's as the file says it now, or a fixed one."""

import logging
import threading
from pathlib import Path

from common.errors import SettingsError
from edge_client.local_service.referral import Referral
from edge_client.policy import POLICY, read_policy

log = logging.getLogger("fedqana.local_service")


class SiteReferral:
    """Reads ``policy.toml`` again when it changed.

    Where the file has become unreadable the rule before it holds on, and `problem` says why.

    Parameters
    ----------
    home : Path
        SettingsError where its policy cannot be read.
    fixed : Referral, optional
        Holds whatever the policy says.
    """

    def __init__(self, home: Path, fixed: Referral | None = None) -> None:
        self._home = home
        self._fixed = fixed
        self._lock = threading.Lock()
        self._seen = self._mark()
        self._rule = self._read() if fixed is None else fixed
        self.problem = ""

    def rule(self) -> Referral:
        """The rule for the next answer."""
        if self._fixed is not None:
            return self._fixed
        with self._lock:
            mark = self._mark()
            if mark != self._seen:
                self._seen = mark
                try:
                    self._rule, self.problem = self._read(), ""
                except SettingsError as error:
                    self.problem = str(error)
                    log.error("the policy cannot be read; the referral rule stays as it was")
            return self._rule

    def _read(self) -> Referral:
        part = read_policy(self._home).referral
        return Referral(part.confidence_below, part.classes)

    def _mark(self) -> tuple[int, int, int] | None:
        try:
            found = (self._home / POLICY).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
