"""A site's exemplars: a few cases of each class from which a new program relearns its head."""

import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.data.cases import Cases
from common.errors import StateDamaged
from common.files import sha256_of, write_atomically
from edge_client.case_journal import LabelledCase

PER_CLASS = 100
_AT_ONCE = 1000
"""Cases of which the pictures are in memory at once."""
_HASH_LENGTH = 64


@dataclass(frozen=True)
class ExemplarStore:
    """At most ``per_class`` cases of each class code.

    Every case has a rank, a hash of seed and case id; a full class keeps the lowest ranks.
    That is a uniform sample of all cases ever offered, as reservoir sampling gives, but it
    depends neither on their order nor on how often one is offered: the same cases and seed make
    the same store, also after a crash half-way. Cases are kept in order of rank, so classes
    alternate when they are learned one after the other.

    Parameters
    ----------
    per_class, seed : int
    case_ids, lesion_ids, codes : tuple of str, length n
    images : uint8 array, shape (n, height, width, 3)
    """

    per_class: int
    seed: int
    case_ids: tuple[str, ...]
    lesion_ids: tuple[str, ...]
    codes: tuple[str, ...]
    images: NDArray[np.uint8]

    @classmethod
    def initial(
        cls, cases: Cases, classes: Sequence[str], per_class: int = PER_CLASS, seed: int = 0
    ) -> "ExemplarStore":
        """A store chosen from a site's training cases, whose labels index ``classes``."""
        codes = [classes[label] for label in cases.labels]
        return _chosen(per_class, seed, cases.case_ids, cases.lesion_ids, codes, cases.images)

    def with_cases(self, cases: Iterable[LabelledCase]) -> "ExemplarStore":
        """This store after newly labelled cases were offered to it, however many."""
        left, store = iter(cases), self
        while some := list(islice(left, _AT_ONCE)):
            store = store._with(some)
        return store

    def _with(self, cases: Sequence[LabelledCase]) -> "ExemplarStore":
        return _chosen(
            self.per_class,
            self.seed,
            [*self.case_ids, *(case.case_id for case in cases)],
            [*self.lesion_ids, *(case.lesion_id for case in cases)],
            [*self.codes, *(case.code for case in cases)],
            np.concatenate([self.images, np.stack([case.image for case in cases])]),
        )

    def __len__(self) -> int:
        return len(self.case_ids)

    def labels(self, classes: Sequence[str]) -> NDArray[np.int64]:
        """Index of each case's code in ``classes``, which has them all."""
        return np.array([classes.index(code) for code in self.codes], np.int64)

    def to_bytes(self) -> bytes:
        """A SHA-256, then the arrays as npz."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            settings=np.array([self.per_class, self.seed], np.int64),
            case_ids=np.array(self.case_ids, np.str_),
            lesion_ids=np.array(self.lesion_ids, np.str_),
            codes=np.array(self.codes, np.str_),
            images=self.images,
        )
        content = buffer.getvalue()
        return sha256_of(content).encode() + content

    def save(self, path: Path) -> None:
        """Replace ``path`` atomically. Raises StorageFull."""
        write_atomically(path, self.to_bytes())

    @classmethod
    def load(cls, path: Path) -> "ExemplarStore":
        """The store saved at ``path``; StateDamaged where it is missing or was changed."""
        try:
            stored = path.read_bytes()
        except OSError as error:
            raise StateDamaged(
                f"no exemplar store at {path} ({error.strerror}); restore it from a backup"
            ) from error
        content = stored[_HASH_LENGTH:]
        if stored[:_HASH_LENGTH] != sha256_of(content).encode():
            raise StateDamaged(
                f"{path} differs from its checksum; restore it from a backup, or remove it to "
                "choose exemplars anew from the site's data"
            )
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            per_class, seed = (int(v) for v in arrays["settings"])
            case_ids, lesion_ids, codes = (
                tuple(str(v) for v in arrays[name]) for name in ("case_ids", "lesion_ids", "codes")
            )
            return cls(per_class, seed, case_ids, lesion_ids, codes, arrays["images"])


def _chosen(
    per_class: int,
    seed: int,
    case_ids: Sequence[str],
    lesion_ids: Sequence[str],
    codes: Sequence[str],
    images: NDArray[np.uint8],
) -> ExemplarStore:
    """The lowest ranks of each class; of an id that occurs twice, the first."""
    first: dict[str, int] = {}
    for index, case_id in enumerate(case_ids):
        first.setdefault(case_id, index)
    kept: list[int] = []
    room = dict.fromkeys(codes, per_class)
    for case_id in sorted(first, key=lambda name: _rank(seed, name)):
        index = first[case_id]
        if room[codes[index]] > 0:
            room[codes[index]] -= 1
            kept.append(index)
    return ExemplarStore(
        per_class,
        seed,
        tuple(case_ids[i] for i in kept),
        tuple(lesion_ids[i] for i in kept),
        tuple(codes[i] for i in kept),
        images[kept],
    )


def _rank(seed: int, case_id: str) -> bytes:
    return hashlib.sha256(f"{seed}:{case_id}".encode()).digest()
