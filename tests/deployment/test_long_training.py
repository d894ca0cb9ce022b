"""A node that starts anew in the middle of a training, and is back before its end."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployment.hospitals import Hospitals, eventually, hospitals

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

NODE = "edge_client.flower_node"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, data: dict[str, Path]) -> Iterator[Hospitals]:
    with hospitals(tmp_path_factory.mktemp("long")) as found:
        found.start_server()
        for site in ("north", "south"):
            found.join(site, data[site])
            found.clients[site].start()
        found.approve("north", "south")
        found.wait_online("north", "south")
        yield found


def test_nobody_waits_for_what_nobody_asks_for_any_more(made: Hospitals) -> None:
    run, south = "long", made.clients["south"]
    epochs = ("--local-epochs", "1000", "--deadline", "400", "--quorum", "0.5")
    made.start_run(run, "--rounds", "2", "--qat-rounds", "0", *epochs)
    eventually("south trains", 120, lambda: south.said('"message": "training"'))
    south.kill(NODE, number=signal.SIGTERM)
    eventually("its trainer gives up", 60, lambda: south.said("what was under way is given up"))
    made.wait_step(run, 2, "evaluate", 600)
    trained = {
        (r.round, r.site): r.accepted
        for r in made.history().load_record(run).site_results
        if r.step == "train"
    }
    assert trained[2, "south"], "it takes part in the next round"
    made.wait_finished(run)
