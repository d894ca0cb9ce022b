"""Dividing one data set over hospital sites, by whole lesions."""

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from common.data.cases import LesionImage
from common.data.splits import collect, lesions_by_class, most_frequent, rng_of
from common.errors import SettingsError

_LONGEST_NAME = 56

ALLOWED = (
    "source (the data's own sources), iid:N, or dirichlet:N:ALPHA with N sites and ALPHA "
    "between 0.001 and 1000000 (small: sites differ much)"
)
"""What ``how`` may be, for messages and help texts."""


def assign_sites(
    images: Sequence[LesionImage], how: str, seed: int
) -> dict[str, list[LesionImage]]:
    """Give every lesion to one site.

    Parameters
    ----------
    images : sequence of LesionImage
        In any order; the result does not depend on it.
    how : str
        ``"source"``: by `LesionImage.source`; a lesion with images of several sources goes to
        the one with most of its images, ties to the first in the alphabet. Sites are named
        after their source in ASCII letters, digits, ``.``, ``_`` and ``-``, numbered where two
        sources would have the same name; images without a source make the site ``unnamed``.
        ``"iid:N"``: every site gets the same share of each class.
        ``"dirichlet:N:ALPHA"``: label skew; of each class the sites get shares drawn from a
        symmetric Dirichlet distribution (Hsu et al. 2019, arXiv 1909.06335).
    seed : int
        Not used by ``"source"``.

    Returns
    -------
    dict of str to list of LesionImage
        Per site, sites and images sorted; no site is empty.

    Raises
    ------
    SettingsError
        A malformed ``how``, more sites than lesions, or data without any source.
    """
    if how == "source":
        site_of_lesion = _by_source(images)
        return collect(images, site_of_lesion, sorted(set(site_of_lesion.values())))
    match = re.fullmatch(r"(iid):(\d+)|(dirichlet):(\d+):([0-9.eE+-]+)", how)
    if match is None:
        raise SettingsError(f"sites {how!r} are not understood; allowed is {ALLOWED}")
    n_sites = int(match[2] or match[4])
    lesions = lesions_by_class(images)
    n_lesions = sum(map(len, lesions.values()))
    if not 1 <= n_sites <= n_lesions:
        raise SettingsError(
            f"sites {how!r}: {n_lesions} lesions can make 1 to {n_lesions} sites, not {n_sites}"
        )
    shuffled = {c: list(rng_of(seed, "sites", c).permutation(ids)) for c, ids in lesions.items()}
    if match[1]:
        dealt = _dealt_evenly(shuffled, n_sites)
    else:
        dealt = _dealt_by_dirichlet(shuffled, n_sites, _alpha(match[5], how), seed)
    _fill_empty_sites(dealt)
    names = [f"site-{number:0{len(str(n_sites))}d}" for number in range(1, n_sites + 1)]
    site_of_lesion = {
        str(lesion): name for name, ids in zip(names, dealt, strict=True) for lesion in ids
    }
    return collect(images, site_of_lesion, names)


def _by_source(images: Sequence[LesionImage]) -> dict[str, str]:
    if not any(image.source for image in images):
        raise SettingsError(
            "sites 'source': the data names no source (a column 'source' or 'dataset'); use iid:N "
            "or dirichlet:N:ALPHA"
        )
    sources: dict[str, Counter[str]] = defaultdict(Counter)
    for image in images:
        sources[image.lesion_id][image.source] += 1
    source_of_lesion = {lesion: most_frequent(counts) for lesion, counts in sources.items()}
    names = _site_names(sorted(set(source_of_lesion.values())))
    return {lesion: names[source] for lesion, source in source_of_lesion.items()}


def _site_names(sources: Sequence[str]) -> dict[str, str]:
    """A name for each source, safe as a file name and in messages, no two alike."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for source in sources:
        ascii_form = unicodedata.normalize("NFKD", source).encode("ascii", "ignore").decode()
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", ascii_form).strip("._-")[:_LONGEST_NAME]
        plain = plain or ("source" if source else "unnamed")
        # A file system may not tell upper and lower case apart.
        candidates = (plain, *(f"{plain}-{number}" for number in range(2, len(sources) + 2)))
        names[source] = next(name for name in candidates if name.lower() not in taken)
        taken.add(names[source].lower())
    return names


def _alpha(text: str, how: str) -> float:
    try:
        alpha = float(text)
    except ValueError:
        alpha = math.nan
    if not 1e-3 <= alpha <= 1e6:
        raise SettingsError(f"sites {how!r}: ALPHA {text} is not allowed; allowed is {ALLOWED}")
    return alpha


def _dealt_evenly(lesions: dict[str, list[str]], n_sites: int) -> list[list[str]]:
    """Deal lesions round the sites; each class goes on where the one before it stopped."""
    in_order = [lesion for ids in lesions.values() for lesion in ids]
    return [in_order[site::n_sites] for site in range(n_sites)]


def _dealt_by_dirichlet(
    lesions: dict[str, list[str]], n_sites: int, alpha: float, seed: int
) -> list[list[str]]:
    dealt: list[list[str]] = [[] for _ in range(n_sites)]
    for label, ids in lesions.items():
        shares = rng_of(seed, "shares", label).dirichlet(np.full(n_sites, alpha))
        cuts = np.rint(np.cumsum(shares)[:-1] * len(ids)).astype(int)
        for site, part in enumerate(np.split(np.array(ids, dtype=object), cuts)):
            dealt[site].extend(part)
    return dealt


def _fill_empty_sites(dealt: list[list[str]]) -> None:
    """Move one lesion from the largest site to each empty one."""
    for site in dealt:
        if not site:
            site.append(max(dealt, key=len).pop())
