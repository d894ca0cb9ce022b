"""Toy cases as the edge client sees them."""

import numpy as np

from common.data.cases import Cases
from edge_client.case_journal import LabelledCase
from tests.akida_runtime.tiny import toy_cases

CLASSES = ("red", "green", "blue")
NEW = "dark"
ALL = (*CLASSES, NEW)


def some_cases(n_per_class: int, seed: int, classes: int = 3) -> Cases:
    images, labels = toy_cases(n_per_class, seed, classes)
    names = tuple(f"s{seed}-{i}" for i in range(len(labels)))
    return Cases(images, labels.astype(np.int64), names, tuple(f"L-{n}" for n in names))


def arriving(
    n_per_class: int, seed: int, round_number: int, codes: tuple[str, ...] = CLASSES
) -> list[LabelledCase]:
    cases = some_cases(n_per_class, seed, classes=4)
    return [
        LabelledCase(case_id, lesion_id, ALL[label], round_number, image)
        for case_id, lesion_id, label, image in zip(
            cases.case_ids, cases.lesion_ids, cases.labels, cases.images, strict=True
        )
        if ALL[label] in codes
    ]
