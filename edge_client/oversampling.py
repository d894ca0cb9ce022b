"""SMOTE's cases for a site's training, made once and kept in the site's folder."""

import hashlib
import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.arrays import from_npz, to_npz
from common.data.cases import Cases
from common.data.smote import COMPONENTS, ClassOutcome, Oversampled, smote
from common.files import write_atomically
from common.seeds import derive_seed
from edge_client.site import SiteFolder, relabelled

log = logging.getLogger("fedqana.site")

FILE = "smote.npz"
"""In a site's folder: the cases last made, of which others they were made, and a hash of all that
they were made from."""

_FORMAT = 2
"""Counted up whenever what `common.data.smote` makes of the same cases, or the file, changes."""


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
    found = _kept(folder / FILE, key, cases)
    if found is None:
        found = smote(cases, len(codes), seed, share=share)
        for code, outcome in zip(codes, found.outcomes, strict=True):
            if outcome.outcome == "single-case":
                log.warning("smote: class %s has a single training case, left as it is", code)
            elif outcome.made:
                log.info(
                    "smote: class %s, %d cases made of %d (%s)",
                    code, outcome.made, outcome.cases, outcome.outcome,
                )  # fmt: skip
        write_atomically(folder / FILE, to_npz(_arrays(found, key, codes, share)), 0o600)
    return found.cases


def last_made(folder: SiteFolder) -> tuple[Oversampled, tuple[str, ...]] | None:
    """What SMOTE last made for a site's training, and the class codes that it knew in index order.

    None where it made nothing, or from other training cases than the site has now; nothing is made.
    """
    file = folder.path / FILE
    try:
        about = json.loads(str(from_npz(file.read_bytes())["about"]))
        codes, share = tuple(about["codes"]), float(about["share"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    data = folder.read()
    cases = relabelled(data.train, data.classes, codes)
    key = _key(cases, len(codes), derive_seed(0, "smote", data.name), share)
    found = _kept(file, key, cases)
    return None if found is None else (found, codes)


def _arrays(
    found: Oversampled, key: str, codes: tuple[str, ...], share: float
) -> dict[str, NDArray[Any]]:
    about = {
        "codes": codes,
        "share": share,
        "outcomes": [asdict(outcome) for outcome in found.outcomes],
        "target": found.target,
        "components": found.components,
    }
    return {
        "key": np.array(key),
        "images": found.made.images,
        "labels": found.made.labels,
        "parents": found.parents,
        "mixing": found.mixing,
        "about": np.array(json.dumps(about)),
    }


def _key(cases: Cases, n_classes: int, seed: int, share: float) -> str:
    """SHA-256 over all that the new cases depend on."""
    settings = [_FORMAT, n_classes, seed, share, COMPONENTS, list(cases.images.shape)]
    digest = hashlib.sha256(json.dumps(settings).encode())
    digest.update(cases.labels.tobytes())
    digest.update(cases.images.tobytes())
    return digest.hexdigest()


def _kept(file: Path, key: str, cases: Cases) -> Oversampled | None:
    """What is in the file, None where it is absent, damaged, or of other cases."""
    try:
        arrays = from_npz(file.read_bytes())
        images, labels = arrays["images"], arrays["labels"]
        if str(arrays["key"]) != key:
            return None
        parents, mixing = arrays["parents"], arrays["mixing"]
        about = json.loads(str(arrays["about"]))
        outcomes = tuple(ClassOutcome(**outcome) for outcome in about["outcomes"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if images.shape != (len(labels), *cases.images.shape[1:]) or images.dtype != np.uint8:
        return None
    if parents.shape != (len(labels), 2) or mixing.shape != labels.shape:
        return None
    return Oversampled(
        Cases.concatenate([cases, _cases(images, labels.astype(np.int64))]),
        outcomes,
        parents.astype(np.int64),
        mixing.astype(np.float32),
        about["target"],
        about["components"],
    )


def _cases(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Cases:
    """New cases with the ids that `smote` gave them: each class's are counted by themselves."""
    ids = tuple(
        f"smote-{label}-{np.count_nonzero(labels[:number] == label)}"
        for number, label in enumerate(labels)
    )
    return Cases(images, labels, ids, ids)
