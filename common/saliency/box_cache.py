"""Boxes that were found before, by the content of the pictures; damage is noticed.

One JSON file for each way of finding: ``{"crop": name, "boxes": {sha256: [l, t, r, b]}, "sha256":
of the boxes}``. It may be deleted at any time.
"""

import json
from pathlib import Path
from typing import Any

from common.files import sha256_of, write_atomically
from common.saliency.boxes import Box

_KEPT_BACK = 256
"""So many new boxes are lost at most when a search is interrupted."""


class BoxCache:
    """Boxes by the SHA-256 of the encoded picture; kept in memory only where ``folder`` is None.

    Parameters
    ----------
    folder : Path, optional
        Made when the first box is stored.
    name : str
        Of the crop, with all that its boxes depend on.

    Attributes
    ----------
    was_damaged : bool
        The file was there but failed its check, so it is made anew.
    """

    def __init__(self, folder: Path | None, name: str) -> None:
        self._name = name
        self._file = None if folder is None else folder / f"boxes-{_short(name)}.json"
        self._boxes, self.was_damaged = self._read()
        self._new = 0

    def get(self, content_hash: str) -> Box | None:
        """The box of a picture, None where it was not found before."""
        return self._boxes.get(content_hash)

    def put(self, content_hash: str, box: Box) -> None:
        """Remember a box; on disk after some more of them or `save`."""
        self._boxes[content_hash] = box
        self._new += 1
        if self._new >= _KEPT_BACK:
            self.save()

    def save(self) -> None:
        """Write what is new, beside what another process wrote meanwhile; StorageFull."""
        if self._file is None or not self._new:
            return
        self._boxes = {**self._read()[0], **self._boxes}
        boxes = {key: list(box) for key, box in sorted(self._boxes.items())}
        document = {"crop": self._name, "boxes": boxes, "sha256": _hash_of(boxes)}
        write_atomically(self._file, json.dumps(document).encode())
        self._new = 0

    def _read(self) -> tuple[dict[str, Box], bool]:
        """What the file holds, and whether it is there but damaged."""
        if self._file is None or not self._file.exists():
            return {}, False
        try:
            document: dict[str, Any] = json.loads(self._file.read_bytes())
            boxes = document["boxes"]
            if document["crop"] != self._name or document["sha256"] != _hash_of(boxes):
                return {}, True
            return {key: Box(*map(int, box)) for key, box in boxes.items()}, False
        except (OSError, ValueError, KeyError, TypeError):
            return {}, True


def _short(name: str) -> str:
    return sha256_of(name.encode())[:16]


def _hash_of(boxes: dict[str, list[int]]) -> str:
    return sha256_of(json.dumps(boxes, sort_keys=True).encode())
