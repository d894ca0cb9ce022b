"""Local differential privacy of a site's update, with Flower's own clipping and noise.

What `flwr.clientapp.mod.LocalDpMod` does, with three differences. It takes messages with a second
set of arrays (the network to distil from). The noise comes from a secret of the site, so that
nobody can draw it again, and is the same when the same update is asked for again. What the noise
carries beyond anything that training could do is cut off, so that the coordinator's checks hold;
that uses nothing of the site's cases, so the guarantee stays (post-processing).
"""

import hashlib
import hmac
import logging
import math
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from flwr.supercore.differential_privacy import (
    add_gaussian_noise_inplace,
    compute_clip_model_update,
    get_norm,
)
from numpy.typing import NDArray

from common.errors import StateDamaged
from common.files import sync_folder
from common.keys import write_secret
from common.messages import TrainAsk
from common.qana.network import BATCH_NORM_MOMENTUM
from common.qana.weights import NamedWeights, is_statistic
from common.update_reach import ROUNDING, farthest, optimizer_steps
from edge_client.policy import PrivacyPolicy

log = logging.getLogger("fedqana.site")

NOISE_KEY = "noise.key"
"""The secret that the noise is drawn from; whoever has it can take the noise off again."""

_KEY_BYTES = 32


def protected(
    trained: NamedWeights,
    received: NamedWeights,
    policy: PrivacyPolicy,
    ask: TrainAsk,
    examples: int,
    home: Path,
) -> NamedWeights:
    """The trained weights as they may leave the site: update clipped, then noised.

    Parameters
    ----------
    trained, received : named float32 arrays
        With the same names and shapes. The update is their difference, over all arrays together.
    policy : PrivacyPolicy
        Returned is ``trained`` itself where it has no ``clip_norm``.
    ask : TrainAsk
        How the site was asked to train.
    examples : int
        Cases that it reports to have trained on.
    home : Path
        The site's home folder, for the secret; nothing is written without noise.

    Raises
    ------
    ValueError
        The arrays do not fit each other, or an update that is not finite: its norm is none.
    """
    if not policy.clip_norm:
        return trained
    names = list(received)
    if set(names) != set(trained):
        raise ValueError("the update's arrays have other names than those received")
    before = [received[name] for name in names]
    after = [trained[name].copy() for name in names]
    norm = get_norm([a - b for a, b in zip(after, before, strict=True)])
    if not math.isfinite(norm):
        raise ValueError("the update is not finite, so it cannot be clipped")
    log.info("norm of the update of round %d: %.4g", ask.round, norm)
    if norm > 0:  # Flower divides by it
        compute_clip_model_update(after, before, policy.clip_norm)
    if policy.epsilon:
        deviation = noise_deviation(policy)
        # Its size is part of the seed: the same noise at two sizes would give the update away.
        size = np.array([deviation, policy.clip_norm], np.float32)
        with _secret_noise(home, [*after, *before, size]):
            add_gaussian_noise_inplace(after, deviation)
    clipped = dict(zip(names, after, strict=True))
    if policy.epsilon:
        clipped = _possible(clipped, received, policy.clip_norm, ask, examples)
    return {name: np.asarray(clipped[name], np.float32) for name in names}


def noise_deviation(policy: PrivacyPolicy) -> float:
    """Standard deviation of the noise on every weight (Dwork and Roth, Theorem A.1)."""
    sensitivity = policy.sensitivity or 2 * policy.clip_norm
    return sensitivity * math.sqrt(2 * math.log(1.25 / policy.delta)) / policy.epsilon


def _possible(
    noised: NamedWeights, received: NamedWeights, clip_norm: float, ask: TrainAsk, examples: int
) -> NamedWeights:
    """The nearest that training could have led to, told from public numbers only.

    A weight moves no further than the optimizer's steps carry it. Batch norm's statistics are a
    moving average: with s steps, momentum^s of the old value is left, so that a variance stays
    above that part of the old one, and the rest is the batches' own. Of these, the length is
    limited to that of the old statistics and a clipped update together.
    """
    reach = farthest(ask, examples) - ROUNDING / 2
    found = {
        name: np.clip(array, received[name] - reach, received[name] + reach)
        for name, array in noised.items()
        if not is_statistic(name)
    }
    kept = BATCH_NORM_MOMENTUM ** optimizer_steps(ask, examples)
    seen = {
        name: (array - kept * received[name]) / (1 - kept)
        for name, array in noised.items()
        if is_statistic(name)
    }
    for name in seen:
        if name.endswith("/moving_variance"):
            seen[name] = np.maximum(seen[name], 0)
    length = get_norm(list(seen.values()))
    longest = get_norm([received[name] for name in seen]) + clip_norm / (1 - kept)
    scale = min(1.0, longest / length) if length else 1.0
    for name, array in seen.items():
        found[name] = kept * received[name] + (1 - kept) * scale * array
    return found


@contextmanager
def _secret_noise(home: Path, arrays: list[NDArray[np.float32]]) -> Iterator[None]:
    """Within the block, numpy's global generator, which Flower draws from, has a secret seed.

    The seed is an HMAC of what is to be hidden: equal updates get equal noise, so asking twice
    tells nothing new; the noise of any other update is independent of it.
    """
    mac = hmac.new(_noise_key(home), digestmod=hashlib.sha512)
    for array in arrays:
        mac.update(np.ascontiguousarray(array).tobytes())
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(np.frombuffer(mac.digest(), np.uint32))  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


def _noise_key(home: Path) -> bytes:
    path = home / NOISE_KEY
    if not path.exists():
        partial = path.with_name(f".{NOISE_KEY}.{os.getpid()}.partial")
        partial.unlink(missing_ok=True)
        write_secret(partial, secrets.token_bytes(_KEY_BYTES))
        with suppress(FileExistsError):  # another process was faster: its key is everyone's
            path.hardlink_to(partial)
        partial.unlink()
        sync_folder(home)
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise StateDamaged(f"{path} is not a key of {_KEY_BYTES} bytes; remove it to get a new one")
    return key
