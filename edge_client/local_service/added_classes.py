"""Class codes that people of the site allowed beside the class map, kept in its state folder."""

import json
import threading
from pathlib import Path

from common.classes import is_code
from common.errors import StateDamaged, UnknownLabel
from common.files import write_atomically

_FILE = Path("service", "added-classes.json")
"""Not beside the versions: whoever installs one clears unfinished files away there."""


class AddedClasses:
    """The codes in ``service/added-classes.json``; for one process, from several threads."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / _FILE
        self._lock = threading.Lock()
        self._codes = self._read()

    @property
    def codes(self) -> tuple[str, ...]:
        """In the order in which they were added."""
        return self._codes

    def add(self, code: str) -> bool:
        """Allow a code; durable when it returns. False where it was added before.

        Raises UnknownLabel for what cannot be a class code, and StorageFull.
        """
        if not is_code(code):
            raise UnknownLabel(
                f"{code!r} is no class code; use 1 to 32 of a to z, 0 to 9, '_' and '-', beginning "
                "with a letter or digit"
            )
        with self._lock:
            if code in self._codes:
                return False
            codes = (*self._codes, code)
            write_atomically(self._path, json.dumps({"codes": codes}).encode())
            self._codes = codes
        return True

    def _read(self) -> tuple[str, ...]:
        try:
            codes = json.loads(self._path.read_bytes())["codes"]
            if all(isinstance(code, str) and is_code(code) for code in codes):
                return tuple(codes)
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, KeyError, TypeError):
            pass
        raise StateDamaged(
            f"{self._path} is not what was written there; restore it from a backup, or remove it "
            "and add the classes again"
        )
