"""What a row's scores of the test lesions are worth."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.calibration import fit_calibration, probabilities, smoothed_log_prior
from common.data.cases import Cases
from common.metrics import ScoreCounts, balanced_accuracy, summarize
from common.reliability import reliability
from simulation.bench.accuracy.seed_data import SeedCases

Scores = NDArray[np.float32]


def shown_accuracy(scores: Scores, cases: Cases) -> float | None:
    """Balanced accuracy for a line of progress; None for too few cases."""
    return balanced_accuracy(ScoreCounts.from_logits(scores, cases.labels))


def judge(
    scores: Scores, validation_scores: Scores | None, cases: SeedCases, prior_strength: float
) -> dict[str, Any]:
    """Metrics of test scores as JSON values.

    Parameters
    ----------
    scores : float32 array, shape (n, C)
        Of ``cases.test``, by the network's logits.
    validation_scores : float32 array, shape (m, C), or None
        Of ``cases.validation``: they fit the temperature of ``ece.calibrated`` and nothing else.
    cases : SeedCases
    prior_strength : float
        tau of the logit adjustment the network was trained with.

    Returns
    -------
    dict
        Those of `MetricSummary`, by plain argmax; ``confusion``; ``sites``, balanced accuracy by
        site; ``with_prior``, accuracy and macro-F1 with the training classes' log prior put back;
        ``ece`` of softmax, and of temperature and prior as a site uses them (None without).
    """
    labels, codes = cases.test.labels, cases.codes
    counts = ScoreCounts.from_logits(scores, labels)
    log_prior = smoothed_log_prior(cases.real.class_counts(len(codes)))
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
        "ece": _expected_errors(scores, validation_scores, cases, log_prior),
    }


def _by_site(scores: Scores, cases: SeedCases) -> dict[str, Any]:
    site_of = np.array(cases.test_sites, np.str_)
    found = {}
    for name in sorted(set(cases.test_sites)):
        inside = site_of == name
        counts = ScoreCounts.from_logits(scores[inside], cases.test.labels[inside])
        found[name] = summarize(counts, cases.codes).balanced_accuracy.to_json()
    return found


def _expected_errors(
    scores: Scores,
    validation_scores: Scores | None,
    cases: SeedCases,
    log_prior: NDArray[np.float64],
) -> dict[str, Any]:
    """Expected calibration errors of the answers by plain argmax (`common.reliability`)."""
    labels, answers = cases.test.labels, scores.argmax(axis=1)
    found: dict[str, Any] = {
        "softmax": reliability(probabilities(scores), labels, answers).ece,
        "calibrated": None,
        "temperature": None,
    }
    if validation_scores is None:
        return found
    held = cases.validation
    fitted = fit_calibration(validation_scores, held.labels, held.lesion_ids, log_prior)
    if fitted.is_fitted:
        found["calibrated"] = reliability(fitted.probabilities(scores), labels, answers).ece
        found["temperature"] = fitted.temperature
    return found
