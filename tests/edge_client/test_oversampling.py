from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.classes import ClassMap
from common.data.cases import Cases
from common.data.smote import SHARE
from common.messages import TrainAsk
from common.qana.config import QanaConfig
from edge_client import oversampling
from edge_client.case_journal import CaseJournal
from edge_client.oversampling import FILE, last_made, oversampled
from edge_client.site import SiteData, SiteFolder
from edge_client.training_cases import training_cases
from tests.edge_client.cases import CLASSES, arriving, some_cases

ASK = TrainAsk(
    run="r", round=2, phase="float", classes=CLASSES, config=QanaConfig(), epochs=1, batch=4,
    learning_rate=1e-2, prior_strength=0.0, proximal=0.0, balance="smote", smote_share=1.0, seed=0,
)  # fmt: skip


def train(counts: tuple[int, ...] = (20, 6, 1)) -> Cases:
    cases = some_cases(20, seed=1)
    kept = [np.flatnonzero(cases.labels == label)[:n] for label, n in enumerate(counts)]
    return cases.subset(np.concatenate(kept))


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def smote(*_: object, **__: object) -> None:
        pytest.fail("made again")

    monkeypatch.setattr(oversampling, "smote", smote)


def test_made_once_for_every_round(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    cases = train()
    first = oversampled(cases, CLASSES, "a", 1.0, tmp_path)
    assert first.class_counts(3).tolist() == [20, 20, 1]
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0
    request.getfixturevalue("forbidden")
    again = oversampled(cases, CLASSES, "a", 1.0, tmp_path)
    assert (again.images == first.images).all() and (again.labels == first.labels).all()
    assert again.case_ids == first.case_ids and again.lesion_ids == first.lesion_ids
    assert again.images.dtype == np.uint8 and again.labels.dtype == np.int64
    assert len({*again.case_ids}) == len(again)


def test_made_anew_for_other_cases(tmp_path: Path) -> None:
    cases = train()
    known = {oversampled(cases, CLASSES, "a", 1.0, tmp_path).images.tobytes()}
    darker = replace(cases, images=cases.images // 2)
    for changed in (
        oversampled(cases, CLASSES, "b", 1.0, tmp_path),
        oversampled(cases, CLASSES, "a", 0.5, tmp_path),
        oversampled(darker, CLASSES, "a", 1.0, tmp_path),
        oversampled(train((20, 7, 1)), CLASSES, "a", 1.0, tmp_path),
        oversampled(replace(cases, labels=(cases.labels + 1) % 3), CLASSES, "a", 1.0, tmp_path),
    ):
        assert changed.images.tobytes() not in known or (changed.labels != cases.labels[0]).any()
        known.add(changed.images.tobytes())
    assert [file.name for file in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize("damage", [b"", b"no npz", None])
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: bytes | None) -> None:
    first = oversampled(train(), CLASSES, "a", 1.0, tmp_path)
    content = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(content[:-50] if damage is None else damage)
    assert (oversampled(train(), CLASSES, "a", 1.0, tmp_path).images == first.images).all()
    assert (tmp_path / FILE).read_bytes() == content


def test_what_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "fedqana.site")
    oversampled(train(), CLASSES, "a", 1.0, tmp_path)
    assert [record.getMessage() for record in caplog.records] == [
        "smote: class green, 14 cases made of 6 (filled)",
        "smote: class blue has a single training case, left as it is",
    ]


@pytest.fixture
def site(tmp_path: Path) -> tuple[SiteFolder, SiteData]:
    """All held-back cases and arrivals are white, which no training case is near."""
    held_back = some_cases(4, seed=2)
    held_back = replace(held_back, images=np.full_like(held_back.images, 255))
    none = held_back.subset(np.zeros(0, np.int64))
    data = SiteData(
        name="a",
        classes=ClassMap(CLASSES),
        train=replace(train(), images=train().images // 4),
        validation=held_back,
        test=held_back,
        arrivals=none,
        arrival_rounds=np.zeros(0, np.int64),
    )
    folder = SiteFolder(tmp_path)
    folder.write(data)
    return folder, data


def test_in_training(site: tuple[SiteFolder, SiteData]) -> None:
    folder, data = site
    cases = training_cases(ASK, folder, data)
    assert cases.class_counts(3).tolist() == [20, 20, 1]
    assert cases.images.max() <= 64, "no held-back case has a part in it"
    assert not {*cases.lesion_ids} & data.held_back
    folder_files = sorted(f.name for f in folder.path.iterdir())
    later = training_cases(ASK.model_copy(update={"round": 3, "seed": 9}), folder, data)
    assert (later.images == cases.images).all()
    assert sorted(f.name for f in folder.path.iterdir()) == folder_files
    kept = training_cases(ASK.model_copy(update={"smote_share": 0.5}), folder, data)
    assert kept.class_counts(3).tolist() == [20, 10, 1]
    plain = training_cases(ASK.model_copy(update={"balance": "none"}), folder, data)
    assert plain.case_ids == data.train.case_ids


def test_what_was_made_can_be_looked_at(
    site: tuple[SiteFolder, SiteData], request: pytest.FixtureRequest
) -> None:
    folder, data = site
    assert last_made(folder) is None
    cases = training_cases(ASK, folder, data)
    request.getfixturevalue("forbidden")
    made = last_made(folder)
    assert made is not None and made[1] == CLASSES
    found = made[0]
    assert (found.cases.images == cases.images).all() and found.cases.case_ids == cases.case_ids
    assert [outcome.made for outcome in found.outcomes] == [0, 14, 0]
    assert found.parents.shape == (14, 2) and (cases.labels[found.parents] == 1).all()
    # Each new image is its parents laid over each other, up to what was rounded and cut off.
    first, second = (cases.images[found.parents[:, i]].astype(float) for i in (0, 1))
    share = found.mixing[:, None, None, None]
    assert np.abs(found.made.images - ((1 - share) * first + share * second)).mean() < 2
    folder.write(replace(data, train=replace(data.train, images=data.train.images // 2)))
    assert last_made(folder) is None


def test_learned_cases_are_added_as_they_are(
    site: tuple[SiteFolder, SiteData], request: pytest.FixtureRequest
) -> None:
    folder, data = site
    before = training_cases(ASK, folder, data)
    request.getfixturevalue("forbidden")
    journal = CaseJournal(folder.state / "cases.journal")
    learned = arriving(2, seed=5, round_number=1)
    for case in learned:
        journal.append(case)
    after = training_cases(ASK.model_copy(update={"round": 3}), folder, data)
    assert after.case_ids == (*before.case_ids, *(case.case_id for case in learned))
    assert (after.images[: len(before)] == before.images).all()


def test_a_site_that_is_written_again_keeps_nothing_made(
    site: tuple[SiteFolder, SiteData],
) -> None:
    folder, data = site
    training_cases(ASK, folder, data)
    assert (folder.path / FILE).exists()
    folder.write(data)
    assert not (folder.path / FILE).exists()


def test_a_run_s_default_share_is_smote_s() -> None:
    from common.commands.smote import smote as command
    from server.commands.plan_options import plan_options
    from server.plan import RunPlan

    assert RunPlan.model_fields["smote_share"].default == SHARE
    assert TrainAsk.model_fields["smote_share"].default == SHARE
    assert next(p.default for p in command.params if p.name == "share") == SHARE
    options = plan_options(lambda: None).__click_params__  # type: ignore[attr-defined]
    assert next(p.default for p in options if p.name == "smote_share") == SHARE
