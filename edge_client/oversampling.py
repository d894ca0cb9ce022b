"""SMOTE's cases for a site's training, made once and kept in the site's folder."""

import hashlib
import json
import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.arrays import from_npz, to_npz
from common.data.cases import Cases
from common.data.smote import COMPONENTS, smote
from common.files import write_atomically
from common.seeds import derive_seed

log = logging.getLogger("fedqana.site")

FILE = "smote.npz"
"""In a site's folder: the cases last made, and a hash of all that they were made from."""

_FORMAT = 1
"""Counted up whenever what `common.data.smote` makes of the same cases changes."""


def oversampled(
    cases: Cases, codes: tuple[str, ...], name: str, share: float, folder: Path
) -> Cases:
    """A site's training cases and those that SMOTE makes of them.

    They are the same in every round and run, whatever process trains: making them takes up to
    minutes, so they are kept in ``folder`` / `FILE` (one file, replaced when the cases change, of
    at most as many images as ``cases``; a damaged one is made anew).

    Parameters
    ----------
    cases : Cases
        Training cases only, labelled by ``codes``.
    codes : tuple of str
        Class codes in index order.
    name : str
        The site's; the seed comes from it.
    share : float
        Of `common.data.smote.target_size`.
    folder : Path

    Raises
    ------
    StorageFull
        ``folder`` cannot be written.
    """
    seed = derive_seed(0, "smote", name)
    key = _key(cases, len(codes), seed, share)
    made = _kept(folder / FILE, key, cases)
    if made is None:
        found = smote(cases, len(codes), seed, share=share)
        made = _cases(found.made.images, found.made.labels)
        for code, outcome in zip(codes, found.outcomes, strict=True):
            if outcome.outcome == "single-case":
                log.warning("smote: class %s has a single training case, left as it is", code)
            elif outcome.made:
                log.info(
                    "smote: class %s, %d cases made of %d (%s)",
                    code, outcome.made, outcome.cases, outcome.outcome,
                )  # fmt: skip
        arrays = {"key": np.array(key), "images": made.images, "labels": made.labels}
        write_atomically(folder / FILE, to_npz(arrays), 0o600)
    return Cases.concatenate([cases, made])


def _key(cases: Cases, n_classes: int, seed: int, share: float) -> str:
    """SHA-256 over all that the new cases depend on."""
    settings = [_FORMAT, n_classes, seed, share, COMPONENTS, list(cases.images.shape)]
    digest = hashlib.sha256(json.dumps(settings).encode())
    digest.update(cases.labels.tobytes())
    digest.update(cases.images.tobytes())
    return digest.hexdigest()


def _kept(file: Path, key: str, cases: Cases) -> Cases | None:
    """The cases in the file, None where it is absent, damaged, or of other cases."""
    try:
        arrays = from_npz(file.read_bytes())
        images, labels = arrays["images"], arrays["labels"]
        if str(arrays["key"]) != key:
            return None
    except (OSError, ValueError, KeyError):
        return None
    if images.shape != (len(labels), *cases.images.shape[1:]) or images.dtype != np.uint8:
        return None
    return _cases(images, labels.astype(np.int64))


def _cases(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Cases:
    ids = tuple(f"smote-{number}" for number in range(len(labels)))
    return Cases(images, labels, ids, ids)
