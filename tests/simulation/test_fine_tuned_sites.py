"""Sites train a run's last version on for themselves and serve what they gain by."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.akida_runtime import Program
from common.bundle import PROGRAM, Bundle, load_bundle
from common.messages import DeployAsk, DeployReply, Instruction
from common.seeds import derive_seed
from edge_client.fine_tuning import FineTuned
from edge_client.policy import POLICY
from edge_client.service import EdgeClient
from edge_client.site import SiteFolder
from edge_client.site_tasks import answer
from server import train_ask
from server.bundle_delivery import files_for_sites
from server.history.engine import default_url
from server.history.records import EdgeUpdate
from server.run_folder import RunFolder
from simulation.bench.accuracy.deployed import make_deployed_records
from simulation.run import execute
from tests.support.tiny_run import create_tiny, differences, fingerprint, record_of

pytestmark = pytest.mark.timeout(900)  # real runs, on a machine that may be busy

FORBIDS, AWAY, THIRD, FOURTH = SITES = [f"site-{n}" for n in range(1, 5)]
POLICIES = {FORBIDS: "[training]\nfine_tune = false\n", AWAY: "[training]\ntake_part = false\n"}
EPOCHS = 12
DATA: dict[str, Any] = {"data": "synthetic:160", "arrivals": 0.0}


@pytest.fixture(autouse=True, scope="module")
def _high_rate() -> Iterator[None]:
    """So few steps on so small a network change its answers at a high rate only, and none gains.

    What decides is tested where there is something to gain (tests/edge_client/test_fine_tuning.py).
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_ask, "FINE_TUNING_RATE", 1e-2)
        patch.setattr(FineTuned, "is_better", True)
        yield


def policy_of(site: str) -> str:
    return POLICIES.get(site, "") + "[acceptance]\ntolerance = 1.0\n"


def executed(out: Path, epochs: int) -> Path:
    folder = create_tiny(out, DATA, fine_tuning_epochs=epochs, all_symmetries="last")
    for site in SITES:
        (folder / "sites" / site / POLICY).write_text(policy_of(site))
    execute(folder, "in-process", out / "cache", default_url(out))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return executed(tmp_path_factory.mktemp("fine-tuned"), EPOCHS)


def updates(folder: Path, version: int) -> dict[str, EdgeUpdate]:
    return {u.site: u for u in record_of(folder).edge_updates if u.version == version}


def last_version(folder: Path) -> Bundle:
    return load_bundle(RunFolder(folder).version(2))


def served(folder: Path, site: str) -> bytes:
    return (folder / "sites" / site / "state" / "versions" / "tiny.2" / "program.fbz").read_bytes()


def ask_of(folder: Path, site: str) -> DeployAsk:
    plan = RunFolder(folder).stored_plan().plan
    asked = train_ask.fine_tuning_ask(plan, 2, plan.classes, site)
    return DeployAsk(
        **{"run": "tiny", "round": 2, "version": 2, "all_symmetries": True},
        seed=derive_seed(plan.seed, "deploy", site),
        original_classes=len(plan.classes),
        fine_tuning=asked,
    )


def test_sites_serve_the_last_version_fine_tuned_where_the_policy_allows_it(run: Path) -> None:
    last = updates(run, 2)
    assert {site: update.fine_tuned for site, update in last.items()} == {
        **dict.fromkeys((FORBIDS, AWAY), False),
        **dict.fromkeys((THIRD, FOURTH), True),
    }
    assert all(update.switched for update in last.values())
    assert not any(update.fine_tuned for update in updates(run, 1).values())
    of_run = last_version(run).files[PROGRAM]
    for site in SITES:
        home = SiteFolder(run / "sites" / site)
        client = EdgeClient(home.state, read_only=True)
        fine_tuned = site in (THIRD, FOURTH)
        assert client.status()["fine_tuned"] is fine_tuned
        assert (served(run, site) != of_run) is fine_tuned


def test_what_all_sites_share_is_as_without(run: Path, tmp_path: Path) -> None:
    plain = executed(tmp_path, 0)
    assert not any(update.fine_tuned for update in updates(plain, 2).values())
    differing = differences(fingerprint(run), fingerprint(plain))
    own = ("site-3", "site-4")
    assert differing and all(any(site in name for site in own) for name in differing), differing
    # What they tell of the run's program is the same, of what they serve it is not.
    of_run, of_site = ("float", "quantized", "akida", "akida_symmetries"), ("symmetries", "chip")
    results = [
        {r.site: r.result for r in record_of(folder).site_results if r.step == "final"}
        for folder in (run, plain)
    ]
    for site in own:
        first, second = (found[site] for found in results)
        assert all(first[head] == second[head] for head in of_run)
        assert any(first[head] != second[head] for head in of_site)


def deployed_again(run: Path, folder: SiteFolder) -> DeployReply:
    """The last deployment, once more."""
    instruction = Instruction(
        "deploy", ask_of(run, folder.path.name), files=files_for_sites(last_version(run))
    )
    found = answer(instruction, folder)
    assert not found.error
    return DeployReply.model_validate_json(found.reply)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def site_of(run: Path, site: str, out: Path) -> SiteFolder:
    shutil.copytree(run / "sites" / site, out / site)
    return SiteFolder(out / site)


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_deployment_that_is_asked_again_gives_the_same_program(
    forgotten: bool, run: Path, tmp_path: Path
) -> None:
    folder = site_of(run, THIRD, tmp_path)
    before = contents(folder.state / "versions" / "tiny.2")
    if forgotten:  # killed before it was put into service: trained again
        shutil.rmtree(folder.state / "versions" / "tiny.2")
        (folder.state / "current").write_text("tiny.1\n")
    else:  # put into service: not trained again, whatever the policy says by now
        (folder.path / POLICY).write_text(policy_of(AWAY))
    assert deployed_again(run, folder).fine_tuned
    assert contents(folder.state / "versions" / "tiny.2") == before


def test_records_tell_the_run_s_program_from_the_sites_own(run: Path, tmp_path: Path) -> None:
    records = {r["row"]: r["result"] for r in make_deployed_records(run, tmp_path)}
    homes = [SiteFolder(run / "sites" / site) for site in SITES]
    of_run = Program.from_bytes(last_version(run).files[PROGRAM])
    for row, own in (("program", False), ("site-program", True)):
        expected = np.zeros((7, 7), int)
        for home in homes:
            data, client = home.read(), EdgeClient(home.state, read_only=True)
            images = data.test.images
            scores = client.classify_global(images) if own else of_run.predict_potentials(images)
            np.add.at(expected, (data.test.labels, scores.argmax(axis=1)), 1)
        assert records[row]["confusion"] == expected.tolist(), row
    assert records["program"]["confusion"] != records["site-program"]["confusion"]


def test_neurons_of_an_own_program_are_not_shared(run: Path) -> None:
    for site in SITES:
        client = EdgeClient(run / "sites" / site / "state", read_only=True)
        found = client.neurons((), last_version(run).card.sha256[PROGRAM])
        assert (found is None) is (site in (THIRD, FOURTH))


def test_runs_with_classes_that_came_later_ask_for_none(run: Path) -> None:
    plan = RunFolder(run).stored_plan().plan
    asked = train_ask.fine_tuning_ask(plan, 2, plan.classes, THIRD)
    assert asked is not None and (asked.epochs, asked.phase) == (EPOCHS, "qat")
    assert asked.class_prior == () and asked.distillation == 0
    assert train_ask.fine_tuning_ask(plan, 2, (*plan.classes, "xyz"), THIRD) is None
    none = plan.model_copy(update={"fine_tuning_epochs": 0})
    assert train_ask.fine_tuning_ask(none, 2, plan.classes, THIRD) is None
