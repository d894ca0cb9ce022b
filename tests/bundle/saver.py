"""Saves two bundles in turn under one name until it is killed: python -m tests.bundle.saver DIR."""

import sys
from itertools import cycle
from pathlib import Path

from common.bundle import save_bundle
from tests.bundle.parts import small_bundle

if __name__ == "__main__":
    bundles = [small_bundle(version, size=200_000) for version in (1, 2)]
    for number, bundle in enumerate(cycle(bundles)):
        save_bundle(bundle, Path(sys.argv[1]) / "1")
        if number == 1:
            print("saving", flush=True)
