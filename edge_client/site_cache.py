"""A site's data, read once in a process for as long as its files are what they were.

One process serves all sites of a simulation, several messages each round; reading the images of
four sites for every one of them took 8 % of a round.
"""

import threading
from pathlib import Path

from common.data.cases import Cases
from edge_client.site import FILES, PARTS, SiteData, SiteFolder

LARGEST = 256 * 2**20
"""Bytes of images that are kept; HAM10000 at 64 x 64 pixels is 123 million."""

Stamp = tuple[tuple[int, int, int], ...]


class SiteCache:
    """The data of the sites that were read first, at most ``largest`` bytes of images.

    Sites are asked in turn, so to give way to the one read last would leave none for its next turn.
    """

    def __init__(self, largest: int = LARGEST) -> None:
        self._largest = largest
        self._kept: dict[Path, tuple[Stamp, SiteData]] = {}
        self._lock = threading.Lock()  # Flower serves from several threads

    def read(self, folder: SiteFolder) -> SiteData:
        """What `SiteFolder.read` gives; nobody can write to its arrays, as others get them too."""
        place = folder.path.resolve()
        before = _stamp(place)
        with self._lock:
            stamp, data = self._kept.get(place, (None, None))
            if data is not None and stamp == before:
                return data
            self._kept.pop(place, None)
        data = folder.read()
        for cases in _all_cases(data):
            cases.images.setflags(write=False)
            cases.labels.setflags(write=False)
        with self._lock:
            size = sum(_size(kept) for _, kept in self._kept.values()) + _size(data)
            # Where a file was replaced meanwhile, nobody knows which one was read.
            if before is not None and before == _stamp(place) and size <= self._largest:
                self._kept[place] = before, data
        return data


def _stamp(place: Path) -> Stamp | None:
    """What tells a file that was replaced or written to; None where one is missing."""
    try:
        found = [(place / name).stat() for name in FILES]
    except OSError:
        return None
    return tuple((s.st_ino, s.st_mtime_ns, s.st_size) for s in found)


def _all_cases(data: SiteData) -> list[Cases]:
    return [*(getattr(data, part) for part in PARTS), data.arrivals]


def _size(data: SiteData) -> int:
    return sum(cases.images.nbytes for cases in _all_cases(data))
