"""Sites that meet new classes in the same round: one index each, everywhere."""

import json
from typing import Any

import numpy as np

from common.messages import DeployReply
from common.score_counts import ScoreCounts
from server.class_registry import newly_met, registered_counts
from server.validation import MOST_CLASSES

KNOWN = ("mel", "nv")


def reply(new_classes: tuple[str, ...], labels: list[int]) -> DeployReply:
    """A site's reply whose chip head recognises every case, and whose program knows `KNOWN`."""
    n_classes = len(KNOWN) + len(new_classes)
    chip = ScoreCounts.from_logits(np.eye(n_classes)[labels], labels).to_json()
    program = ScoreCounts.from_logits(np.eye(2)[[0, 1]], [0, 1]).to_json()
    values: dict[str, Any] = {
        "switched": True,
        "reason": "",
        "in_service": 1,
        "cases_learned": 1,
        "new_classes": new_classes,
        "backend": "software backend (akida 2.19.3)",
        "heads": {
            "akida": program,
            "quantized": program,
            "chip_before": chip,
            "chip_after": chip,
        },
        **{key: [0, 0] for key in ("old_before", "old_after", "new_before", "new_after")},
        "agreement": {},
        "mean_spikes": {},
        "seconds": 0.0,
    }
    return DeployReply.model_validate_json(json.dumps(values))


def test_the_first_site_by_name_registers_a_class() -> None:
    replies = {
        "b": reply(("bcc", "df"), [0]),
        "a": reply(("df", "vasc"), [0]),
        "c": reply((), [0]),
    }
    assert newly_met(KNOWN, replies) == [("df", "a"), ("vasc", "a"), ("bcc", "b")]
    full = tuple(f"c{index}" for index in range(MOST_CLASSES - 1))
    assert newly_met(full, replies) == [("df", "a")]


def test_counts_of_new_classes_are_kept_under_the_runs_own_index() -> None:
    # bcc came from another site; here df was met, then vasc, which the other site has too.
    registry = (*KNOWN, "vasc", "bcc", "df")
    heads = registered_counts(reply(("df", "vasc"), [0, 1, 2, 2, 2, 3]), KNOWN, registry)
    cases = np.diag(heads["chip_after"].confusion).tolist()
    assert dict(zip(registry, cases, strict=True)) == {
        "mel": 1,
        "nv": 1,
        "vasc": 1,
        "bcc": 0,
        "df": 3,
    }
    assert heads["akida"].n == 2 and heads["akida"].n_classes == 5
    for counts in heads.values():
        ScoreCounts.from_json(counts.to_json())


def test_a_class_beyond_the_most_a_run_may_have_follows_the_registry() -> None:
    heads = registered_counts(reply(("bcc", "df"), [0, 2, 3, 3]), KNOWN, (*KNOWN, "df"))
    assert np.diag(heads["chip_after"].confusion).tolist() == [1, 0, 2, 1]
