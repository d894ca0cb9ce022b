"""All sites of a run crop alike: a run, its sites and its versions say how."""

from pathlib import Path

import pytest

from common.bundle import CARD, load_bundle
from common.errors import QuorumMissed
from common.messages import DeployAsk, Instruction
from edge_client.site import SiteFolder
from edge_client.site_tasks import answer
from server.bundle_delivery import files_for_sites
from server.history.engine import default_url
from server.run_folder import RunFolder, StoredPlan
from simulation.run import execute
from tests.support.tiny_run import create_tiny, record_of, run_tiny

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
    assert [s.reason.partition(":")[0] for s in refused] == ["wrong-crop"] * 4
