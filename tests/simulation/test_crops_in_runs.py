"""All sites of a run crop alike: a run, its sites and its versions say how."""

import json
from pathlib import Path

import pytest

from common.bundle import CARD, load_bundle
from common.errors import QuorumMissed
from common.messages import PROTOCOL, DeployAsk, HandshakeAsk, Instruction
from edge_client.site import SiteFolder
from edge_client.site_tasks import answer
from server.bundle_delivery import files_for_sites
from server.history.engine import default_url
from server.plan import RunPlan
from server.run_folder import RunFolder, StoredPlan
from simulation.run import execute
from tests.support.tiny_run import TINY, create_tiny, record_of, run_tiny

ONE_ROUND = {"float_rounds": 1, "qat_rounds": 0}


def test_a_version_names_the_crop_and_no_other_site_takes_it(tmp_path: Path) -> None:
    folder = run_tiny(tmp_path, {"crop": "whole"}, **ONE_ROUND)
    bundle = load_bundle(RunFolder(folder).version(1))
    assert bundle.card.crop == "whole"
    other = SiteFolder(create_tiny(tmp_path, run="other", **ONE_ROUND) / "sites" / "site-1")
    files = files_for_sites(bundle, None)
    assert CARD in files
    ask = DeployAsk(run="r", round=1, version=1, original_classes=7, seed=0)
    assert answer(Instruction("deploy", ask, files=files), other).error == "wrong-crop"
    own = SiteFolder(folder / "sites" / "site-1")
    assert answer(Instruction("deploy", ask, files=files), own).error == ""


def test_sites_that_crop_otherwise_are_left_out_by_name(tmp_path: Path) -> None:
    folder = create_tiny(tmp_path, {"crop": "whole"}, **ONE_ROUND)
    stored = RunFolder(folder).stored_plan()
    plan = stored.plan.model_copy(update={"crop": "centre"})
    RunFolder(folder).create(StoredPlan(plan=plan, data=stored.data))
    with pytest.raises(QuorumMissed, match="fits the run"):
        execute(folder, "in-process", tmp_path / "cache", default_url(tmp_path))
    refused = [s for s in record_of(folder).sites if not s.accepted]
    assert len(refused) == 4
    assert all(s.reason.startswith("wrong-crop: its images are cropped by") for s in refused)
    # A plan of before says nothing of crops: the run goes on as it would have.
    before = plan.model_dump(exclude={"crop"})
    RunFolder(folder).create(StoredPlan(plan=RunPlan.model_validate(before), data=stored.data))
    execute(folder, "in-process", tmp_path / "cache", default_url(tmp_path))
    assert record_of(folder).run.state == "finished"


def test_a_coordinator_of_another_protocol_can_read_which_one_a_site_speaks(
    tmp_path: Path,
) -> None:
    site = SiteFolder(create_tiny(tmp_path, **ONE_ROUND) / "sites" / "site-1")
    for protocol, said in ((PROTOCOL, True), (PROTOCOL - 1, False)):
        ask = HandshakeAsk(protocol=protocol, run="r", classes=("nv", "mel"), config=TINY)
        reply = json.loads(answer(Instruction("handshake", ask), site).reply)
        assert reply["protocol"] == PROTOCOL
        assert ("crop" in reply) is said
