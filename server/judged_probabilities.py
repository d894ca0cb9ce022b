"""How far a network's probabilities can be trusted, and what referring the unsure cases brings."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.calibration import (
    Calibration,
    cross_fitted,
    fit_calibration,
    probabilities,
    smoothed_log_prior,
)
from common.referral_curve import ReferralCurve, referral_curve
from common.reliability import Reliability, reliability

AS_IS = "softmax of the scores"
CALIBRATED = "the probability with temperature and prior"


@dataclass(frozen=True)
class ScoredCases:
    """Scores float (n, C), n at least 1, true class indices int64 (n,), and n lesion ids."""

    scores: NDArray[Any]
    labels: NDArray[np.int64]
    lesion_ids: tuple[str, ...]

    def subset(self, indices: NDArray[np.int64]) -> "ScoredCases":
        """The cases at ``indices`` (int64, shape (k,))."""
        lesions = tuple(self.lesion_ids[i] for i in indices)
        return ScoredCases(self.scores[indices], self.labels[indices], lesions)

    def calibration(self, with_prior: bool) -> Calibration:
        """A temperature for these cases, with the prior of their own frequencies where asked."""
        counts = np.bincount(self.labels, minlength=self.scores.shape[1])
        prior = smoothed_log_prior(counts) if with_prior else None
        return fit_calibration(self.scores, self.labels, self.lesion_ids, prior, keep_prior=True)

    def fit(self, with_prior: bool) -> Callable[[NDArray[np.int64]], Calibration]:
        """`calibration` as a function of the cases' indices."""
        return lambda chosen: self.subset(chosen).calibration(with_prior)


@dataclass(frozen=True)
class JudgedProbabilities:
    """Calibration of a set of answers as it is, and by temperatures fitted on other lesions.

    Parameters
    ----------
    as_is : Reliability
        Of softmax.
    temperature, with_prior : Reliability or None
        Of softmax with a temperature, and with the classes' frequencies as well; None where there
        are too few lesions, and ``note`` says so.
    temperatures : tuple of float
        With the prior: one, or one for each part of the images.
    fitted_on : str
        What temperatures and frequencies are of, in words.
    note : str
    referral : ReferralCurve
    referred_by : str
        What the least confident cases are told by: `AS_IS` or `CALIBRATED`.
    """

    as_is: Reliability
    temperature: Reliability | None
    with_prior: Reliability | None
    temperatures: tuple[float, ...]
    fitted_on: str
    note: str
    referral: ReferralCurve
    referred_by: str

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {
            "as_is": self.as_is.to_json(),
            "temperature": self.temperature.to_json() if self.temperature else None,
            "with_prior": self.with_prior.to_json() if self.with_prior else None,
            "temperatures": list(self.temperatures),
            "fitted_on": self.fitted_on,
            "note": self.note,
            "referral": self.referral.to_json(),
            "referred_by": self.referred_by,
        }


def judge_probabilities(
    judged: ScoredCases, validation: ScoredCases | None = None
) -> JudgedProbabilities:
    """Judge the probabilities of images by calibrations that were fitted on other lesions.

    Temperature and class frequencies are those of ``validation``, lesions of ``judged`` left out.
    Without it they are those of the other lesions of ``judged``, fifth by fifth (`cross_fitted`),
    which tells what a site with such cases gets that fits on four fifths as many. The answers are
    those of the scores, in which all classes count alike.
    """
    scores, labels = judged.scores, judged.labels
    answers = scores.argmax(axis=1)
    plain = probabilities(scores)
    if validation is None:
        source = "the other lesions of the same images"
        (scaled, _), (calibrated, used) = (
            cross_fitted(scores, labels, judged.lesion_ids, judged.fit(with_prior))
            for with_prior in (False, True)
        )
    else:
        source = "the validation images"
        inside = set(judged.lesion_ids)
        others = [i for i, lesion in enumerate(validation.lesion_ids) if lesion not in inside]
        rest = validation.subset(np.array(others, np.int64))
        used = [rest.calibration(with_prior=True)]
        scaled = rest.calibration(with_prior=False).probabilities(scores)
        calibrated = used[0].probabilities(scores)
    note = next((each.note for each in used if not each.is_fitted), "")
    if note and validation is not None and len(rest.labels) < len(validation.labels):
        left_out = len(validation.labels) - len(rest.labels)
        note += f"; {left_out} validation images are of lesions that are judged"
    confidence = plain if note else calibrated
    rows = np.arange(len(labels))
    return JudgedProbabilities(
        as_is=reliability(plain, labels, answers),
        temperature=None if note else reliability(scaled, labels, answers),
        with_prior=None if note else reliability(calibrated, labels, answers),
        temperatures=() if note else tuple(each.temperature for each in used),
        fitted_on="" if note else source,
        note=note,
        referral=referral_curve(confidence[rows, answers], answers, labels, judged.lesion_ids),
        referred_by=AS_IS if note else CALIBRATED,
    )
