"""Splitting images into parts of whole lesions."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from common.data.cases import LesionImage
from common.errors import SettingsError
from common.files import sha256_of

FRACTIONS = {"train": 0.8, "validation": 0.1, "test": 0.1}
"""How a site's lesions are divided."""


def split_by_lesion(
    images: Sequence[LesionImage], fractions: Mapping[str, float], seed: int
) -> dict[str, list[LesionImage]]:
    """Split into parts of whole lesions, stratified by class.

    A class with at least as many lesions as there are parts stands in every part. One with
    fewer fills the parts in the order of ``fractions``, a lesion each, so name training first.
    Each class is shuffled on its own: another class appearing leaves its split as it was.

    Parameters
    ----------
    images : sequence of LesionImage
        In any order; the result does not depend on it.
    fractions : mapping of str to float
        Share of each part's lesions, above 0, summing to 1.
    seed : int

    Returns
    -------
    dict of str to list of LesionImage
        Per part, sorted by image id; every image in exactly one of them.

    Raises
    ------
    SettingsError
        Fractions that are not above 0 or do not sum to 1.
    """
    if min(fractions.values(), default=0.0) <= 0 or not math.isclose(
        sum(fractions.values()), 1.0, abs_tol=1e-6
    ):
        given = ", ".join(f"{part} {share:g}" for part, share in fractions.items())
        raise SettingsError(f"split fractions must be above 0 and sum to 1, not {given}")
    part_of_lesion: dict[str, str] = {}
    for label, lesions in lesions_by_class(images).items():
        shuffled = rng_of(seed, "split", label).permutation(np.array(lesions, dtype=object))
        counts = _lesions_per_part(len(lesions), list(fractions.values()))
        parts = [part for part, n in zip(fractions, counts, strict=True) for _ in range(n)]
        part_of_lesion.update(zip(shuffled, parts, strict=True))
    return collect(images, part_of_lesion, list(fractions))


def lesions_by_class(images: Sequence[LesionImage]) -> dict[str, list[str]]:
    """Lesion ids of each class, both sorted.

    A lesion whose images carry different labels counts as the label that most of them have,
    of equally frequent ones as the first in the alphabet.
    """
    labels: dict[str, Counter[str]] = defaultdict(Counter)
    for image in images:
        labels[image.lesion_id][image.label] += 1
    lesions: dict[str, list[str]] = defaultdict(list)
    for lesion in sorted(labels):
        lesions[most_frequent(labels[lesion])].append(lesion)
    return {label: lesions[label] for label in sorted(lesions)}


def most_frequent(counts: Counter[str]) -> str:
    """The most frequent value, of equally frequent ones the first in the alphabet."""
    return min(counts, key=lambda value: (-counts[value], value))


def rng_of(seed: int, purpose: str, label: str) -> np.random.Generator:
    """Random generator that depends on nothing but its three arguments."""
    return np.random.default_rng([seed, int(sha256_of(f"{purpose}/{label}".encode())[:16], 16)])


def collect(
    images: Sequence[LesionImage], place_of_lesion: Mapping[str, str], places: Sequence[str]
) -> dict[str, list[LesionImage]]:
    """Images of each place, sorted by id, given the place of every lesion."""
    collected: dict[str, list[LesionImage]] = {place: [] for place in places}
    for image in sorted(images, key=lambda i: (i.image_id, i.location)):
        collected[place_of_lesion[image.lesion_id]].append(image)
    return collected


def _lesions_per_part(n_lesions: int, fractions: list[float]) -> list[int]:
    """Divide ``n_lesions`` by largest remainder, with at least one in each part if possible."""
    if n_lesions < len(fractions):
        return [int(part < n_lesions) for part in range(len(fractions))]
    shares = [n_lesions * fraction for fraction in fractions]
    counts = [math.floor(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda p: (counts[p] - shares[p], p))
    for part in by_remainder[: n_lesions - sum(counts)]:
        counts[part] += 1
    while 0 in counts:
        counts[counts.index(max(counts))] -= 1
        counts[counts.index(0)] += 1
    return counts
