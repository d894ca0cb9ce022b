"""A site's folder: its cases, what arrives, and the state that the edge client keeps.

site.json       name, class map, whether it shares neurons, how its images were cropped
cases.npz       training, validation and test cases
arrivals.npz    newly labelled cases and the round after which each arrives (simulation)
smote.npz       cases that `edge_client.oversampling` made of the training cases
state/          journal, exemplars and versions of the edge client, whatever the run
"""

import json
from collections.abc import Container
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.arrays import from_npz, to_npz
from common.classes import ClassMap
from common.data.cases import Cases
from common.errors import DataNotFound, DataUnreadable
from common.files import write_atomically
from common.saliency.choice import CENTRE, CropChoice
from edge_client.case_journal import LabelledCase

PARTS = ("train", "validation", "test")

_ABOUT, _CASES, _ARRIVALS = "site.json", "cases.npz", "arrivals.npz"
FILES = (_ABOUT, _CASES, _ARRIVALS)
"""Those that `SiteFolder.read` reads."""


@dataclass(frozen=True)
class SiteData:
    """A site's cases, labelled by ``classes``; ``arrivals`` in the order in which they come.

    ``arrival_rounds`` is int64 (n,): a case of round r is learned while version r is deployed,
    or the next one that reaches the site, and trained on from the round after that.
    ``shares_neurons`` is whether what the chip learned of new classes may leave the site. ``crop``
    is how the images were cropped: later pictures must be in the same way.
    """

    name: str
    classes: ClassMap
    train: Cases
    validation: Cases
    test: Cases
    arrivals: Cases
    arrival_rounds: NDArray[np.int64]
    shares_neurons: bool = True
    crop: CropChoice = CENTRE

    @property
    def held_back(self) -> frozenset[str]:
        """Ids of the lesions that nothing may be learned from."""
        return frozenset((*self.validation.lesion_ids, *self.test.lesion_ids))

    def arriving(
        self, round_number: int, known: Container[str] = (), learned_in: int | None = None
    ) -> list[LabelledCase]:
        """The labelled cases that have arrived by a run's round, in order, but for ``known``.

        ``known`` are ids of cases that were learned in earlier rounds; ``learned_in`` is the site's
        own number of this round where it differs. A case of a lesion that is held back is left
        out: it would be judged on what it had learned.
        """
        held_back = self.held_back
        return [
            LabelledCase(
                case_id=self.arrivals.case_ids[i],
                lesion_id=self.arrivals.lesion_ids[i],
                code=self.classes.codes[self.arrivals.labels[i]],
                round=round_number if learned_in is None else learned_in,
                image=self.arrivals.images[i],
            )
            for i in np.flatnonzero(self.arrival_rounds <= round_number)
            if self.arrivals.case_ids[i] not in known
            and self.arrivals.lesion_ids[i] not in held_back
        ]


class SiteFolder:
    """Reads and writes a site's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, data: SiteData) -> None:
        """Store a site's data; an existing state is left as it is."""
        write_atomically(
            self.path / _ABOUT,
            json.dumps(
                {
                    "name": data.name,
                    "classes": data.classes.codes,
                    "shares_neurons": data.shares_neurons,
                    "crop": asdict(data.crop),
                }
            ).encode(),
        )
        parts = {part: getattr(data, part) for part in PARTS}
        write_atomically(self.path / _CASES, to_npz(_flatten(parts)))
        write_atomically(
            self.path / _ARRIVALS,
            to_npz({**_flatten({"arrivals": data.arrivals}), "rounds": data.arrival_rounds}),
        )
        (self.path / "smote.npz").unlink(missing_ok=True)  # made of cases that may be gone now

    def codes(self) -> tuple[str, ...]:
        """The class map's codes; empty where the folder has no data yet."""
        try:
            return tuple(json.loads((self.path / _ABOUT).read_text())["classes"])
        except (OSError, ValueError, KeyError, TypeError):
            return ()

    def read(self) -> SiteData:
        """The site's data; DataNotFound or DataUnreadable where the folder has none."""
        try:
            about = json.loads((self.path / _ABOUT).read_text())
            arrays = from_npz((self.path / _CASES).read_bytes())
            arrived = from_npz((self.path / _ARRIVALS).read_bytes())
            parts = {part: _unflatten(arrays, part) for part in PARTS}
            return SiteData(
                name=str(about["name"]),
                classes=ClassMap(tuple(about["classes"])),
                arrivals=_unflatten(arrived, "arrivals"),
                arrival_rounds=arrived["rounds"],
                shares_neurons=bool(about["shares_neurons"]),
                crop=CropChoice(**about.get("crop", {})),
                **parts,
            )
        except FileNotFoundError as error:
            raise DataNotFound(
                f"{self.path} is not a site's folder ({error.filename} is missing); prepare the "
                "site again"
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataUnreadable(
                f"a file in {self.path} cannot be read ({error}); prepare the site again"
            ) from error

    @property
    def state(self) -> Path:
        """Where the edge client keeps what it has learned."""
        return self.path / "state"


def _flatten(parts: dict[str, Cases]) -> dict[str, NDArray[np.generic]]:
    arrays: dict[str, NDArray[np.generic]] = {}
    for name, cases in parts.items():
        arrays[f"{name}_images"] = cases.images
        arrays[f"{name}_labels"] = cases.labels
        arrays[f"{name}_case_ids"] = np.array(cases.case_ids, np.str_)
        arrays[f"{name}_lesion_ids"] = np.array(cases.lesion_ids, np.str_)
    return arrays


def _unflatten(arrays: dict[str, NDArray[np.generic]], name: str) -> Cases:
    return Cases(
        arrays[f"{name}_images"].astype(np.uint8, copy=False),
        arrays[f"{name}_labels"].astype(np.int64, copy=False),
        tuple(str(v) for v in arrays[f"{name}_case_ids"]),
        tuple(str(v) for v in arrays[f"{name}_lesion_ids"]),
    )


def relabelled(cases: Cases, own: ClassMap, registry: tuple[str, ...]) -> Cases:
    """A site's cases with the run's class indices; cases of classes it does not have are left out.

    Parameters
    ----------
    own : ClassMap
        The map that ``cases.labels`` index.
    registry : tuple of str
        The run's class codes in index order.
    """
    index = np.array(
        [registry.index(code) if code in registry else -1 for code in own.codes], np.int64
    )
    labels = index[cases.labels] if len(cases) else cases.labels
    kept = cases.subset(np.flatnonzero(labels >= 0))
    return Cases(kept.images, labels[labels >= 0], kept.case_ids, kept.lesion_ids)
