"""A promoted version: sites fine-tune it and answer by eight views, as with a run's last."""

from pathlib import Path

import pytest
from flwr.supercore.task_identity import TaskIdentity

from common.keys import new_seal
from edge_client.flower import app as deployed
from edge_client.policy import POLICY
from edge_client.service import EdgeClient
from server.delivery import deliver
from server.delivery_order import Delivered
from server.flower import FlowerTransport
from server.history.engine import default_url
from server.history.store import open_history
from server.plan import RunPlan
from server.run_folder import RunFolder, StoredPlan
from simulation.in_process import InProcessGrid
from tests.support.tiny_run import run_tiny

ALWAYS_SWITCH = "[acceptance]\ntolerance = 1.0\n"


@pytest.mark.parametrize(("said", "eight"), [("last", True), ("never", False)])
def test_a_promoted_version(
    said: str, eight: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"all_symmetries": said, "fine_tuning_epochs": 2 if eight else 0}
    folder = run_tiny(tmp_path, float_rounds=2, qat_rounds=0, **settings)
    caplog.set_level("INFO", logger="fedqana.site")
    caplog.clear()
    sites = sorted(path for path in (folder / "sites").iterdir() if path.is_dir())
    for site in sites:
        (site / POLICY).write_text(ALWAYS_SWITCH)
    run = RunFolder(folder)
    delivery = RunFolder(tmp_path / "delivery")
    stored = run.stored_plan()
    plan = RunPlan.model_validate({**stored.plan.model_dump(), "run": "delivery"})
    delivery.create(StoredPlan(plan=plan, data="delivery of tiny:1"))
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    transport = FlowerTransport(InProcessGrid(deployed, sites))
    first = Delivered(run="tiny", version=1, folder=str(run.version(1)))
    with open_history(default_url(tmp_path)) as history:
        deliver(delivery, first, transport, history, new_seal()[0])
    for site in sites:
        status = EdgeClient(site / "state", read_only=True).status()
        assert str(status["version"]).startswith("delivery"), status
        assert status["all_symmetries"] is eight
    assert caplog.text.count("version 1 fine-tuned: balanced accuracy ") == (4 if eight else 0)
