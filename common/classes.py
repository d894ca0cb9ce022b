"""Diagnosis classes and the registry that gives each of them one index everywhere."""

import re
from dataclasses import dataclass

from common.errors import UnknownLabel

HAM10000_NAMES: dict[str, str] = {
    "akiec": "actinic keratosis / Bowen's disease",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis",
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "melanocytic nevus",
    "vasc": "vascular lesion",
}
"""The seven codes of HAM10000 (Tschandl et al., Sci. Data 2018) in index order."""


CODE_PATTERN = r"[a-z0-9][a-z0-9_-]{0,31}"
"""What a class code may be: it is the one word of their own that sites send."""


def is_code(text: str) -> bool:
    """Whether ``text`` may be a class code."""
    return re.fullmatch(CODE_PATTERN, text) is not None


@dataclass(frozen=True)
class ClassMap:
    """Ordered class codes; a class's position is its index in every array of the system.

    Parameters
    ----------
    codes : tuple of str
        Distinct, lower-case codes. New codes are only ever appended, so an index never
        changes its meaning within a run.
    """

    codes: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.codes)) != len(self.codes):
            raise UnknownLabel(f"class map has a code twice: {', '.join(self.codes)}")

    def __len__(self) -> int:
        return len(self.codes)

    def __contains__(self, code: object) -> bool:
        return code in self.codes

    def index(self, code: str) -> int:
        """Index of a class code; raises UnknownLabel for a code that is not in the map."""
        try:
            return self.codes.index(code)
        except ValueError:
            raise UnknownLabel(
                f"label {code!r} is not in the class map ({', '.join(self.codes)}); "
                "correct the label or add the class to the map"
            ) from None

    def without(self, code: str) -> "ClassMap":
        """This map without ``code``: what a federation knows before the class first appears."""
        return ClassMap(tuple(c for c in self.codes if c != code))


HAM10000_CLASSES = ClassMap(tuple(HAM10000_NAMES))
