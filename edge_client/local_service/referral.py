"""Which cases a person is told to look at, whatever the chip answers."""

from dataclasses import dataclass
from enum import Enum, auto

from common.errors import SettingsError


class Head(Enum):
    """Which head decided; names as in the .proto."""

    PROGRAM = auto()
    CHIP = auto()
    BOTH = auto()


class ReferReason(Enum):
    """Why a case is referred; names as in the .proto."""

    LOW_CONFIDENCE = auto()
    REFERRED_CLASS = auto()
    NEW_CLASS = auto()


@dataclass(frozen=True)
class Referral:
    """A site's rule: refer uncertain answers, some classes, and those that only the chip knows.

    Parameters
    ----------
    confidence_below : float
        Refer where the answer's probability is below this, 0 to 1.
    classes : tuple of str
        Refer where the answer is one of these codes.
    """

    confidence_below: float = 0.7
    classes: tuple[str, ...] = ("mel",)

    def __post_init__(self) -> None:
        if not 0.0 <= self.confidence_below <= 1.0:
            raise SettingsError(
                f"a probability below {self.confidence_below} cannot be; give a limit from 0 to 1"
            )

    def reasons(self, answer: str, probability: float, decided_by: Head) -> tuple[ReferReason, ...]:
        """All reasons to refer a case with this answer; none where it need not be."""
        found = []
        if probability < self.confidence_below:
            found.append(ReferReason.LOW_CONFIDENCE)
        if answer in self.classes:
            found.append(ReferReason.REFERRED_CLASS)
        if decided_by is Head.CHIP:
            found.append(ReferReason.NEW_CLASS)
        return tuple(found)
