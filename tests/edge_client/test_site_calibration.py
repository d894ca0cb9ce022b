"""A site's probabilities: fitted on its own cases when a version is installed, and kept with it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.calibration import probabilities, smoothed_log_prior
from common.errors import StateDamaged
from common.reliability import reliability
from edge_client.exemplars import ExemplarStore
from edge_client.local_service.snapshot import Snapshot, mark_of
from edge_client.service import EdgeClient, EdgeSettings
from edge_client.site_calibration import NEVER_FITTED, SiteCalibration
from edge_client.versions import VersionFolder
from tests.akida_runtime.tiny import tiny_program
from tests.edge_client.cases import ALL, CLASSES, NEW, arriving, some_cases
from tests.edge_client.test_service import HELD_BACK, MISLABELLED, STORE, contents

COUNTS = {"red": 90, "green": 9, "blue": 1}


def install(client: EdgeClient, version: int, store: ExemplarStore = STORE, **how):  # type: ignore[no-untyped-def]
    options = {"validation": HELD_BACK, "counts": COUNTS, **how}
    return client.install(tiny_program(), str(version), version, CLASSES, store, **options)


def scores_of(client: EdgeClient) -> np.ndarray:  # type: ignore[type-arg]
    return client.decide(HELD_BACK.images, CLASSES)


def test_what_decides_is_calibrated(tmp_path: Path) -> None:
    client = EdgeClient(tmp_path)
    install(client, 1)
    found = client.calibration()
    assert found.is_fitted and found.lesions == 45 and found.note == ""
    true = [CLASSES[label] for label in HELD_BACK.labels]
    expected = SiteCalibration.fitted(
        scores_of(client), true, HELD_BACK.lesion_ids, CLASSES, COUNTS
    )
    assert found == expected
    labels = HELD_BACK.labels
    before = reliability(probabilities(scores_of(client)), labels)
    after = reliability(found.probabilities(scores_of(client), CLASSES), labels)
    assert after.nll <= before.nll + 0.05  # one case of which nothing is known between the two
    assert found.ece_before == pytest.approx(before.ece) and found.ece_after is not None


def test_frequencies_of_the_site_are_used_where_they_hold() -> None:
    rng = np.random.default_rng(0)
    prior = smoothed_log_prior(list(COUNTS.values()))
    scores = rng.normal(size=(3000, 3)).astype(np.float32) * 2
    shares = probabilities(scores, 1.0, prior)
    labels = (rng.random(3000)[:, None] > shares.cumsum(axis=1)).sum(axis=1)
    lesions = [f"L{i}" for i in range(3000)]
    true = [CLASSES[label] for label in labels]
    found = SiteCalibration.fitted(scores * 2, true, lesions, CLASSES, COUNTS)
    assert found.counts == COUNTS and found.temperature == pytest.approx(2, rel=0.1)
    assert found.ece_after is not None and found.ece_before is not None
    assert found.ece_after < 0.03 < 0.2 < found.ece_before
    np.testing.assert_allclose(
        found.probabilities(scores * 2, CLASSES),
        probabilities(scores * 2, found.temperature, prior),
    )
    # a class that came later is as frequent as one that the site has not seen
    wider = np.concatenate([scores, scores[:, :1]], axis=1)
    as_new = found.probabilities(wider, ALL)
    odds = np.log(as_new[:, 3] / as_new[:, 0])
    np.testing.assert_allclose(odds, np.log(1 / 91), rtol=1e-4)
    even = [CLASSES[label] for label in rng.integers(0, 3, 3000)]
    assert SiteCalibration.fitted(scores, even, lesions, CLASSES, COUNTS).counts == {}
    unknown = SiteCalibration.fitted(scores, ["other"] * 3000, lesions, CLASSES, COUNTS)
    assert unknown.note == "too few validation lesions (0 of 20)"


@pytest.mark.parametrize(
    ("n_per_class", "classes", "note"),
    [
        (0, 3, "too few validation lesions (0 of 20)"),
        (2, 3, "too few validation lesions (6 of 20)"),
    ],
)
def test_too_few_cases(tmp_path: Path, n_per_class: int, classes: int, note: str) -> None:
    client = EdgeClient(tmp_path)
    install(client, 1, validation=some_cases(n_per_class, seed=2))
    found = client.calibration()
    note = f"too few validation lesions ({3 * n_per_class} of 20)"
    assert found == SiteCalibration(note=note) and not found.is_fitted
    np.testing.assert_allclose(
        found.probabilities(scores_of(client), CLASSES), probabilities(scores_of(client))
    )


def test_a_single_class(tmp_path: Path) -> None:
    only = HELD_BACK.subset(np.flatnonzero(HELD_BACK.labels == 1))
    client = EdgeClient(tmp_path)
    install(client, 1, validation=only)
    assert client.calibration().note == "too few validation lesions (15 of 20)"
    cases = some_cases(25, seed=4)
    install(client, 2, validation=cases.subset(np.flatnonzero(cases.labels == 0)))
    assert client.calibration().note == "all validation cases are of one class"


def test_it_goes_with_the_version(tmp_path: Path) -> None:
    lenient = EdgeClient(tmp_path, EdgeSettings(tolerance=1.0))
    install(lenient, 1)
    first = lenient.calibration()
    install(lenient, 2, MISLABELLED)
    second = lenient.calibration()
    assert second != first and EdgeClient(tmp_path).calibration() == second
    assert lenient.rollback() == "1"
    assert lenient.calibration() == EdgeClient(tmp_path).calibration() == first
    # kept: the one in service is fitted, not the one that was refused
    strict = EdgeClient(tmp_path)
    assert not install(strict, 3, MISLABELLED).switched
    kept = strict.calibration()
    assert kept.temperature == pytest.approx(first.temperature, rel=1e-3)
    assert abs(kept.temperature - second.temperature) > 0.01


def test_installed_again_it_is_the_same(tmp_path: Path) -> None:
    client = EdgeClient(tmp_path)
    install(client, 1)
    for case in arriving(2, seed=3, round_number=1, codes=(NEW,)):
        client.learn(case)
    install(client, 2)
    once = contents(tmp_path / "versions")
    install(EdgeClient(tmp_path), 2)
    assert contents(tmp_path / "versions") == once
    assert client.calibration().counts in ({}, {**COUNTS, NEW: 2})


def test_answers_use_it(tmp_path: Path) -> None:
    client = EdgeClient(tmp_path)
    install(client, 1)
    snapshot = Snapshot.of(client, tmp_path)
    assert snapshot.calibration == client.calibration()
    expected = client.calibration().probabilities(scores_of(client), CLASSES)
    for image, scores, shares in zip(HELD_BACK.images, scores_of(client), expected, strict=True):
        answer = snapshot.answer(snapshot.scores(image))
        assert answer.scores[0].code == CLASSES[scores.argmax()]
        found = {s.code: s.probability for s in answer.scores}
        assert found == pytest.approx(dict(zip(CLASSES, shares, strict=True)), rel=1e-5)
        assert sum(found.values()) == pytest.approx(1)


def test_a_rare_class_can_be_the_answer_and_not_the_most_probable(tmp_path: Path) -> None:
    client = EdgeClient(tmp_path)
    install(client, 1)
    common = SiteCalibration(2.0, {"red": 1000, "green": 1, "blue": 1}, 50, "")
    snapshot = replace(Snapshot.of(client, tmp_path), calibration=common)
    answer = snapshot.answer(np.array([1.0, 2.0, 0.0], np.float32))
    assert [s.code for s in answer.scores] == ["green", "red", "blue"]
    assert answer.scores[0].probability < 0.5 < answer.scores[1].probability


def test_older_versions_have_none_and_damaged_ones_are_named(tmp_path: Path) -> None:
    client = EdgeClient(tmp_path)
    install(client, 1)
    install(client, 2)
    file = tmp_path / "versions" / "2" / "calibration.json"
    whole = file.read_bytes()
    assert SiteCalibration.from_bytes(whole) == client.calibration()
    mark = mark_of(tmp_path)
    value = json.loads(whole)
    for junk in (
        b"",
        b"[]",
        b"{}",
        json.dumps({**value, "temperature": 0}).encode(),
        json.dumps({**value, "temperature": "1"}).encode(),
        json.dumps({**value, "counts": {"red": -1}}).encode(),
        json.dumps({**value, "counts": [1]}).encode(),
    ):
        file.write_bytes(junk)
        with pytest.raises(StateDamaged, match=r"calibration\.json"):
            EdgeClient(tmp_path).calibration()
    assert mark_of(tmp_path) != mark
    file.unlink()
    assert EdgeClient(tmp_path).calibration() == SiteCalibration(note=NEVER_FITTED)
    assert VersionFolder(tmp_path).calibration("1") == SiteCalibration.from_bytes(whole)
