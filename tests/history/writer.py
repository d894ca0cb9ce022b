"""A process that writes rounds and events, one line of output for each that is durable.

Run as ``python -m tests.history.writer URL RUN COUNT``.
"""

import sys

from server.history.records import Round
from server.history.store import open_history
from tests.history.examples import START, example_run


def write(url: str, run_id: str, count: int) -> None:
    with open_history(url) as history:
        history.save_run(example_run(run_id))
        for number in range(1, count + 1):
            history.save_round(Round(run_id, number, "float", START, START, 1, 1))
            history.add_event(run_id, "round", f"round {number} done", round=number)
            print(number, flush=True)


if __name__ == "__main__":
    write(sys.argv[1], sys.argv[2], int(sys.argv[3]))
