"""What a run's settings say of its rounds."""

import json
from pathlib import Path

import pytest

from common.errors import SettingsError
from server.plan import RunPlan, make_plan
from server.run_folder import RunFolder, StoredPlan


def plan(**settings: object) -> RunPlan:
    return make_plan(
        run="r", seed=0, classes=("mel", "nv"), float_rounds=2, qat_rounds=1, **settings
    )


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        ("never", [False, False, False]),
        ("last", [False, False, True]),
        ("always", [True, True, True]),
        # Plans of earlier versions.
        (False, [False, False, False]),
        (True, [True, True, True]),
    ],
)
def test_versions_that_sites_answer_by_eight_views_with(said: object, asked: list[bool]) -> None:
    found = plan(all_symmetries=said)
    assert [found.by_symmetries(number) for number in (1, 2, 3)] == asked
    assert RunPlan.model_validate_json(found.model_dump_json()) == found


def test_the_last_version_answers_by_eight_views_by_default() -> None:
    assert plan() == plan(all_symmetries="last")


def test_other_words_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"all-symmetries: .*never.*last.*always"):
        plan(all_symmetries="sometimes")


def test_runs_that_began_before_sites_fine_tuned_go_on_without(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "r")
    folder.create(StoredPlan(plan=plan(), data="d"))
    assert folder.stored_plan().plan.fine_tuning_epochs == 5
    file = tmp_path / "r" / "plan.json"
    value = json.loads(file.read_text())
    del value["plan"]["fine_tuning_epochs"]
    file.write_text(json.dumps(value))
    assert folder.stored_plan().plan.fine_tuning_epochs == 0
