"""A small bundle made of plain arrays: nothing here needs TensorFlow or Akida."""

import numpy as np

from common.bundle import Bundle, make_bundle
from common.qana.config import QanaConfig


def small_bundle(version: int = 1, size: int = 50) -> Bundle:
    """A bundle whose content depends on ``version``; ``size`` is its program's in bytes."""
    rng = np.random.default_rng(version)
    quantized = {"head/kernel": rng.normal(size=(4, 3)).astype(np.float32)}
    floating = {"stem/kernel": rng.normal(size=(3, 3, 3, 8)).astype(np.float32), **quantized}
    return make_bundle(
        rng.bytes(size),
        quantized,
        floating,
        run="run-1",
        version=version,
        parent=version - 1,
        phase="float",
        classes=("bkl", "mel", "nv"),
        config=QanaConfig(),
        seed=5,
        ranges=(1.5, 0.25),
        fit={"AKD1000": {"fits": True}},
        metrics={"validation": {"n": 0}},
    )
