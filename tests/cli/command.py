"""The real `fedqana` command in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def fedqana(
    *arguments: str | Path, folder: Path = ROOT, before: tuple[str | Path, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run the command with ``folder`` as working directory; ``before`` comes before Python."""
    own = ("FEDQANA_OUT", "FEDQANA_DATABASE", "COLUMNS")
    environment = {name: value for name, value in os.environ.items() if name not in own}
    return subprocess.run(
        [*before, sys.executable, "-m", "simulation.cli", *arguments],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
