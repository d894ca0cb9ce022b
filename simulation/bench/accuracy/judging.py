"""What a row's scores of the test lesions are worth."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.calibration import (
    Calibration,
    fit_calibration,
    probabilities,
    smoothed_log_prior,
)
from common.data.cases import Cases
from common.metrics import ScoreCounts, balanced_accuracy, summarize
from common.referral_curve import referral_curve
from common.reliability import reliability
from simulation.bench.accuracy.seed_data import SeedCases

Scores = NDArray[np.float32]


def shown_accuracy(scores: Scores, cases: Cases) -> float | None:
    """Balanced accuracy for a line of progress; None for too few cases."""
    return balanced_accuracy(ScoreCounts.from_logits(scores, cases.labels))


def judge(
    scores: Scores,
    validation_scores: Scores | None,
    cases: SeedCases,
    prior_strength: float,
    own: NDArray[np.float64] | None = None,
) -> dict[str, Any]:
    """Metrics of test scores as JSON values.

    Parameters
    ----------
    scores : float32 array, shape (n, C)
        Of ``cases.test``, by the network's logits.
    validation_scores : float32 array, shape (m, C), or None
        Of ``cases.validation``: they fit the temperature of ``ece.calibrated``, and are judged by
        themselves.
    cases : SeedCases
    prior_strength : float
        tau of the logit adjustment the network was trained with.
    own : float64 array, shape (n, C), optional
        Probabilities of ``cases.test`` that are calibrated already, in place of a temperature here.

    Returns
    -------
    dict
        Those of `MetricSummary`, by plain argmax; ``confusion``; ``sites``, balanced accuracy by
        site; ``with_prior``, accuracy and macro-F1 with the training classes' log prior put back;
        ``ece`` of softmax, and of temperature and prior as a site uses them (None without);
        ``referral``, accuracy over the share of cases that is referred (`common.referral_curve`),
        the least confident by these probabilities first, or without them by softmax;
        ``validation``, balanced accuracy, macro-F1 and AUC of the validation lesions, by which rows
        can be chosen (None without).
    """
    labels, codes = cases.test.labels, cases.codes
    counts = ScoreCounts.from_logits(scores, labels)
    log_prior = smoothed_log_prior(cases.real.class_counts(len(codes)))
    fitted = None if own is not None else _fitted(validation_scores, cases, log_prior)
    calibrated = fitted.probabilities(scores) if fitted else own
    restored = ScoreCounts.from_logits(scores + prior_strength * log_prior, labels)
    likely = summarize(restored, codes)
    return {
        **summarize(counts, codes).to_json(),
        "confusion": counts.confusion.tolist(),
        "sites": _by_site(scores, cases),
        "with_prior": {
            "accuracy": likely.accuracy.to_json(),
            "macro_f1": likely.macro_f1.to_json(),
        },
        "ece": {
            "softmax": _expected_error(probabilities(scores), scores, cases.test),
            "calibrated": (
                None if calibrated is None else _expected_error(calibrated, scores, cases.test)
            ),
            "temperature": fitted.temperature if fitted else None,
        },
        "referral": _referral(
            probabilities(scores) if calibrated is None else calibrated, scores, cases.test
        ),
        "validation": _held_back(validation_scores, cases),
    }


def _held_back(scores: Scores | None, cases: SeedCases) -> dict[str, Any] | None:
    if scores is None:
        return None
    counts = ScoreCounts.from_logits(scores, cases.validation.labels)
    found = summarize(counts, cases.codes).to_json()
    return {name: found[name] for name in ("balanced_accuracy", "macro_f1", "macro_auc")}


def _expected_error(shares: NDArray[np.float64], scores: Scores, cases: Cases) -> float:
    """Expected calibration error of probabilities ``shares`` of the answers by ``scores``."""
    return reliability(shares, cases.labels, scores.argmax(axis=1)).ece


def _referral(shares: NDArray[np.float64], scores: Scores, cases: Cases) -> dict[str, Any]:
    """The referral curve of the answers by ``scores``, ``shares`` telling who is unsure."""
    answers = scores.argmax(axis=1)
    confidence = shares[np.arange(len(answers)), answers]
    return referral_curve(confidence, answers, cases.labels, cases.lesion_ids).to_json()


def _by_site(scores: Scores, cases: SeedCases) -> dict[str, Any]:
    site_of = np.array(cases.test_sites, np.str_)
    found = {}
    for name in sorted(set(cases.test_sites)):
        inside = site_of == name
        counts = ScoreCounts.from_logits(scores[inside], cases.test.labels[inside])
        found[name] = summarize(counts, cases.codes).balanced_accuracy.to_json()
    return found


def _fitted(
    validation_scores: Scores | None, cases: SeedCases, log_prior: NDArray[np.float64]
) -> Calibration | None:
    """Temperature and prior from validation lesions; None where there are too few."""
    if validation_scores is None:
        return None
    held = cases.validation
    fitted = fit_calibration(validation_scores, held.labels, held.lesion_ids, log_prior)
    return fitted if fitted.is_fitted else None
