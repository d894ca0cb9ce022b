"""Kill a run with SIGKILL at random moments, resume it to its end, compare it with an unkilled one.

python -m tests.kill_trials --trials 8
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from simulation.sites import NewClass
from tests.support.tiny_run import create_tiny, differences, fingerprint, position_of


@dataclass
class Trial:
    """Where the kills of one trial fell, and what came out different."""

    kills: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)


def start(folder: Path) -> "subprocess.Popen[bytes]":
    """`fedqana simulate --resume` of the run in ``folder``, as a process of its own."""
    command = [sys.executable, "-m", "simulation.cli", "simulate", "--out", str(folder.parent)]
    log = (folder.parent / "log.txt").open("ab")
    with log:
        return subprocess.Popen(
            [*command, "--resume", folder.name, "--json"], stdout=log, stderr=log
        )


def finish(folder: Path) -> None:
    """Resume the run until it is finished."""
    status = start(folder).wait()
    if status != 0:
        raise SystemExit((folder.parent / "log.txt").read_text()[-2000:])


def kill_after(folder: Path, seconds: float) -> str | None:
    """Resume, kill after some seconds; returns the step it fell in, None where it had finished."""
    process = start(folder)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return position_of(folder)
    return None


def trial(prepared: Path, out: Path, expected: dict[str, object], delays: list[float]) -> Trial:
    """A copy of the prepared run, killed after each of ``delays`` seconds, then finished."""
    folder = out / prepared.name
    shutil.copytree(prepared, folder)
    found = Trial()
    for delay in delays:
        step = kill_after(folder, delay)
        if step is None:
            break
        found.kills.append(step)
    finish(folder)
    found.different = differences(expected, fingerprint(folder))
    return found


def main() -> None:
    """Run the trials and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--kills", type=int, default=2, help="most kills of a trial")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        settings = {"float_rounds": 6, "qat_rounds": 4, "run": "trial", "distillation": 1.0}
        settings["compression"] = "quantization"
        new = NewClass(code="bcc", round=2, site="site-1")  # so that neurons are shared
        data = {"rounds": 10, "arrivals": 0.4, "new_class": new}
        prepared = create_tiny(out / "prepared", data, **settings)
        reference = create_tiny(out / "reference", data, **settings)
        started = time.monotonic()
        finish(reference)
        duration = time.monotonic() - started
        expected = fingerprint(reference)
        print(f"uninterrupted: {duration:.0f} s, {len(expected)} things to compare", flush=True)
        print("| trial | killed in (round/step) | identical |\n|---|---|---|", flush=True)
        same = 0
        for number in range(1, options.trials + 1):
            delays = [moments.uniform(0, duration) for _ in range(options.kills)]
            found = trial(prepared, out / str(number), expected, delays)
            same += not found.different
            result = "yes" if not found.different else "no: " + ", ".join(found.different[:5])
            print(f"| {number} | {', '.join(found.kills) or '-'} | {result} |", flush=True)
        print(f"{same} of {options.trials} identical")


if __name__ == "__main__":
    main()
