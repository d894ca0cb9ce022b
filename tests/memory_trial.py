"""Print the resident memory of a tiny run as its rounds go by.

python -m tests.memory_trial --rounds 50
"""

import argparse
import gc
import tempfile
from pathlib import Path

import psutil

from server.progress import Progress, listening
from tests.support.tiny_run import run_tiny


def resident_by_round(out: Path, rounds: int) -> dict[int, float]:
    """MiB resident after each round of a run of float rounds below ``out``."""
    found: dict[int, float] = {}

    def note(progress: Progress) -> None:
        if progress.step == "deploy" and progress.done:
            gc.collect()
            found[progress.round] = psutil.Process().memory_info().rss / 2**20

    with listening(note):
        run_tiny(out, float_rounds=rounds, qat_rounds=0)
    return found


def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        found = resident_by_round(Path(name), rounds)
    for number in sorted({1, 5, rounds // 2, rounds} & found.keys()):
        print(f"round {number:>3}: {found[number]:.0f} MiB")


if __name__ == "__main__":
    main()
