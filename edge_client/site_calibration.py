"""What makes a site's scores probabilities: fitted when a version is taken into service.

It is fitted to the scores of both heads together, which decide, on all of the site's validation
cases, and stays at the site. Nothing was learned from those cases; programs are accepted by them,
which chooses between two programs and moves no probability.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.calibration import (
    HIGHEST,
    LOWEST,
    Calibration,
    cross_fitted,
    fit_calibration,
    probabilities,
    smoothed_log_prior,
)
from common.reliability import reliability

NEVER_FITTED = "the version was installed before probabilities were calibrated"


@dataclass(frozen=True)
class SiteCalibration:
    """A version's temperature and class counts, by code since later cases bring new classes.

    Parameters
    ----------
    temperature : float
        1 where none was fitted.
    counts : mapping of str to int
        The site's cases of each class, whose smoothed frequencies are the prior; empty where the
        prior is left out.
    lesions : int
        Validation lesions that it was fitted on; 0 where it was not.
    note : str
        Why it was not fitted, or empty.
    ece_before, ece_after : float or None
        Expected calibration error of softmax, and of calibrations that were fitted to the other
        lesions (`common.calibration.cross_fitted`); None where it was not fitted.
    """

    temperature: float = 1.0
    counts: Mapping[str, int] = field(default_factory=dict)
    lesions: int = 0
    note: str = NEVER_FITTED
    ece_before: float | None = None
    ece_after: float | None = None

    @classmethod
    def fitted(
        cls,
        scores: NDArray[np.float32],
        true: Sequence[str],
        lesion_ids: Sequence[str],
        codes: Sequence[str],
        counts: Mapping[str, int],
    ) -> "SiteCalibration":
        """Fit to validation cases, those of classes that no head has left out.

        Parameters
        ----------
        scores : float32 array, shape (n, len(codes))
            Of both heads together.
        true, lesion_ids : sequence of str, length n
            Each case's class code and lesion.
        codes : sequence of str
            Of the columns.
        counts : mapping of str to int
            The site's training cases of each class; without any the prior is left out.
        """
        kept = [i for i, code in enumerate(true) if code in codes]
        scores, lesions = scores[kept], [lesion_ids[i] for i in kept]
        labels = np.array([codes.index(true[i]) for i in kept], np.int64)
        prior = _log_prior(counts, codes)

        def fit(chosen: NDArray[np.int64]) -> Calibration:
            among = [lesions[i] for i in chosen]
            # Four fifths of the lesions are enough where all of them are.
            return fit_calibration(scores[chosen], labels[chosen], among, prior, min_lesions=1)

        found = fit_calibration(scores, labels, lesions, prior)
        if not found.is_fitted:
            return cls(note=found.note)
        answers = scores.argmax(axis=1)
        shares, _ = cross_fitted(scores, labels, lesions, fit)
        return cls(
            temperature=found.temperature,
            counts=dict(counts) if found.log_prior else {},
            lesions=found.lesions,
            note="",
            ece_before=reliability(probabilities(scores), labels, answers).ece,
            ece_after=reliability(shares, labels, answers).ece,
        )

    @property
    def is_fitted(self) -> bool:
        """Whether probabilities are calibrated on this site's cases."""
        return self.lesions > 0

    def probabilities(
        self, scores: NDArray[np.float32], codes: Sequence[str]
    ) -> NDArray[np.float64]:
        """Class probabilities float64 (n, len(codes)) of combined scores of the same shape."""
        return probabilities(scores, self.temperature, _log_prior(self.counts, codes))

    def to_bytes(self) -> bytes:
        """As JSON; equal calibrations give equal bytes."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> "SiteCalibration":
        """Read what `to_bytes` wrote; raises ValueError for anything else."""
        value = json.loads(content)
        if not isinstance(value, dict) or set(value) != set(asdict(cls())):
            raise ValueError("these are not the fields of a calibration")
        found = cls(**value)
        numbers = [found.temperature, found.lesions, *_counts_of(found.counts)]
        if not all(type(n) in (int, float) and n >= 0 for n in numbers):
            raise ValueError("a number of the calibration is none, or negative")
        if not LOWEST <= found.temperature <= HIGHEST:
            raise ValueError(f"a temperature of {found.temperature} is outside its bounds")
        return found


def _counts_of(counts: Any) -> list[Any]:
    if not isinstance(counts, dict):
        raise ValueError("the class counts are no object")
    return list(counts.values())


def _log_prior(counts: Mapping[str, int], codes: Sequence[str]) -> NDArray[np.float64] | None:
    if not counts:
        return None
    return smoothed_log_prior([counts.get(code, 0) for code in codes])
