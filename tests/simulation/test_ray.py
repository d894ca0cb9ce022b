"""Flower's Ray backend: other processes, the same run."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.tiny_run import create_tiny, differences, fingerprint, run_tiny


def test_ray_gives_the_same_run_as_one_process(tmp_path: Path) -> None:
    folder = create_tiny(tmp_path / "ray", {"sites": "iid:2"}, qat_rounds=0)
    command = [sys.executable, "-m", "simulation.cli", "simulate", "--engine", "ray", "--json"]
    result = subprocess.run(
        [*command, "--out", str(folder.parent), "--resume", folder.name],
        capture_output=True,
        text=True,
        env={**os.environ, "RAY_TMPDIR": "/tmp"},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    expected = run_tiny(tmp_path / "one", {"sites": "iid:2"}, qat_rounds=0)
    assert differences(fingerprint(expected), fingerprint(folder)) == []
