"""Seeds derived from what they are for, so that no step depends on how many came before it."""

import hashlib


def derive_seed(run_seed: int, *parts: int | str) -> int:
    """A seed in [0, 2**31) that depends on the run's seed and on ``parts``, e.g. round and site."""
    text = "/".join(str(part) for part in (run_seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
