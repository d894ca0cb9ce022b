"""The two things that data becomes: lesion images on disk, then cases as arrays."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LesionImage:
    """One labelled image on disk, not yet decoded.

    Parameters
    ----------
    image_id : str
        Unique within its data set.
    lesion_id : str
        Images of one lesion share it; splits and sites are made of whole lesions. Where a
        layout has neither lesion nor patient ids, every image is its own lesion.
    label : str
        Class code, lower case.
    source : str
        Where it was acquired (HAM10000's ``dataset`` column), or ``""``.
    location : str
        Human-readable path (``folder/x.jpg`` or ``archive.zip:x.jpg``) for messages.
    read : callable
        Returns the encoded file's bytes.
    """

    image_id: str
    lesion_id: str
    label: str
    source: str
    location: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Cases:
    """Labelled images as arrays.

    Parameters
    ----------
    images : uint8 array, shape (n, size, size, 3)
        RGB.
    labels : int64 array, shape (n,)
        Indices into the class map that goes with it.
    case_ids, lesion_ids : tuple of str, length n
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    case_ids: tuple[str, ...]
    lesion_ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: NDArray[np.int64]) -> "Cases":
        """The cases at ``indices`` (int64, shape (k,)), in that order."""
        return Cases(
            self.images[indices],
            self.labels[indices],
            tuple(self.case_ids[i] for i in indices),
            tuple(self.lesion_ids[i] for i in indices),
        )

    def class_counts(self, n_classes: int) -> NDArray[np.int64]:
        """Number of cases per class, shape (n_classes,)."""
        return np.bincount(self.labels, minlength=n_classes).astype(np.int64)

    @staticmethod
    def concatenate(parts: "list[Cases]") -> "Cases":
        """All cases of ``parts`` (at least one) in order."""
        return Cases(
            np.concatenate([p.images for p in parts]),
            np.concatenate([p.labels for p in parts]),
            tuple(i for p in parts for i in p.case_ids),
            tuple(i for p in parts for i in p.lesion_ids),
        )

    @staticmethod
    def empty(size: int) -> "Cases":
        """No cases of ``size`` x ``size`` pixels."""
        return Cases(np.zeros((0, size, size, 3), np.uint8), np.zeros(0, np.int64), (), ())
