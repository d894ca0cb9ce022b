"""What compression left out of a site's updates, on disk until a later round sends it.

Error feedback (arXiv 1901.09847): what a round's update leaves out is added to the next one's
change. So nothing is lost, only late: the sum of all that was sent is the sum of the changes less
what is left out now.

The rule: a round begins with what was left out of the last round that the coordinator counted, as
its instruction says, and leaves its own beside it. So a round that is asked for again, after a
kill, a resume or a lost reply, begins where it did before and gives the same answer; one whose
update was not used (late, refused, discarded) leaves nothing behind, like its training. No more
than these two rounds are kept.

It belongs to one run and phase, its classes, network and method; with any other it is not used.
What is missing or damaged counts as nothing: that costs a little of the training, not the round.
What is added to a weight is limited (`common.update_reach.UNSENT_REACH`), so that the coordinator
can tell what is possible; the rest is dropped.

Where the site's policy clips the update, what was left out is added before, and only what
compression leaves out of the clipped update is kept: the norm holds for what is sent. Where it adds
noise, nothing is kept nor added. The change less what was sent would be the noise with its sign
turned, and sending that later takes the noise off again. What compression leaves out of the noised
update would give nothing away, but is made of noise and not worth sending.
"""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.arrays import from_npz, to_npz
from common.compression import decompress
from common.errors import SiteRefused, StorageError
from common.files import sha256_of, write_atomically
from common.messages import TrainAsk
from common.qana.weights import NamedWeights, is_statistic
from common.update_reach import UNSENT_REACH, farthest
from edge_client.client_folder import pinned_seal
from edge_client.site import SiteFolder
from edge_client.state_lock import state_in_use

log = logging.getLogger("fedqana.site")

FOLDER = "unsent"
"""In the state folder: a file for each kept round, named by its number in the run."""


class UnsentChange:
    """What one run's updates of a site left out; see the module for the rule.

    Parameters
    ----------
    home : Path
        The site's folder.
    ask : TrainAsk
        The round that is trained now.
    """

    def __init__(self, home: Path, ask: TrainAsk) -> None:
        self._state = SiteFolder(home).state
        self._ask = ask
        self._coordinator = pinned_seal(home) or ""

    def add_to(self, trained: NamedWeights, received: NamedWeights, examples: int) -> NamedWeights:
        """The trained weights with what was left out before; batch norm's statistics as they are.

        ``examples`` is how many cases they were trained on, which bounds what is added.
        """
        earlier = self._load(received)
        limit = np.float32(UNSENT_REACH * farthest(self._ask, examples))
        return {
            name: array + np.clip(earlier[name], -limit, limit) if name in earlier else array
            for name, array in trained.items()
        }

    def keep(
        self, wanted: NamedWeights, sent: dict[str, NDArray[Any]], received: NamedWeights
    ) -> None:
        """Keep what the compressed change ``sent`` lacks of the ``wanted`` weights, durable.

        A disk that is full does not keep the update from being sent.
        """
        try:
            reached = decompress(sent, received)
        except SiteRefused:  # weights that are not finite, which the coordinator refuses too
            return
        left_out = {n: wanted[n] - reached[n] for n in received if not is_statistic(n)}
        about = np.frombuffer(self._about(self._ask.round), np.uint8)
        content = to_npz({"about": about, **{f"left:{n}": a for n, a in left_out.items()}})
        path = self._path(self._ask.round)
        try:
            with state_in_use(self._state):
                for partial in path.parent.glob(".*"):  # of a process that was killed
                    partial.unlink()
                write_atomically(path, sha256_of(content).encode() + content, mode=0o600)
                for other in path.parent.iterdir():
                    if other not in (path, self._path(self._ask.counted)):
                        other.unlink()
        except (StorageError, OSError) as error:
            log.warning("what the update leaves out is not kept: %s", error)

    def forget(self) -> None:
        """Remove all that is kept."""
        for path in (self._state / FOLDER).glob("*"):
            path.unlink(missing_ok=True)

    def _load(self, received: NamedWeights) -> NamedWeights:
        """What the last counted round left out; nothing where there is none that fits."""
        path = self._path(self._ask.counted)
        try:
            stored = path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            log.warning("%s cannot be read and is not used: %s", path, error.strerror)
            return {}
        content = stored[64:]
        if stored[:64] != sha256_of(content).encode():
            log.warning("%s is damaged and not used", path)
            return {}
        arrays = from_npz(content)
        if arrays.pop("about").tobytes() != self._about(self._ask.counted):
            return {}
        found = {name.removeprefix("left:"): array for name, array in arrays.items()}
        shapes = {n: a.shape for n, a in received.items() if not is_statistic(n)}
        return found if {n: a.shape for n, a in found.items()} == shapes else {}

    def _about(self, round_number: int) -> bytes:
        """Everything that must be the same for what a round left out to be of use."""
        form = {"run", "phase", "classes", "config", "compression"}
        about = self._ask.model_dump(mode="json", include=form)
        return json.dumps({**about, "round": round_number, "of": self._coordinator}).encode()

    def _path(self, round_number: int) -> Path:
        return self._state / FOLDER / str(round_number)
