import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.akida_runtime import Program
from common.data.cases import Cases
from common.errors import DataUnfit, ModelNotFound, SettingsError, StateDamaged, UnknownLabel
from common.neurons import Neurons
from edge_client.case_journal import LabelledCase
from edge_client.exemplars import ExemplarStore
from edge_client.service import EdgeClient, EdgeSettings
from edge_client.versions import InstallReport, VersionFolder
from tests.akida_runtime.tiny import tiny_program
from tests.edge_client.cases import ALL, CLASSES, NEW, arriving, some_cases

STORE = ExemplarStore.initial(some_cases(15, seed=1), CLASSES, per_class=10, seed=5)
SWAPPED = {"red": "red", "green": "blue", "blue": "green"}
MISLABELLED = replace(STORE, codes=tuple(SWAPPED[code] for code in STORE.codes))
HELD_BACK = some_cases(15, seed=2)
FOURTH = arriving(8, seed=3, round_number=1, codes=(NEW,))


def install(
    client: EdgeClient,
    version: int,
    store: ExemplarStore = STORE,
    program: Program | None = None,
    held_back: Cases = HELD_BACK,
) -> InstallReport:
    return client.install(
        program or tiny_program(), str(version), version, CLASSES, store, held_back
    )


def recalls(client: EdgeClient) -> list[float]:
    cases = some_cases(20, seed=99, classes=4)
    found = client.classify(cases.images, ALL).argmax(axis=1)
    return [float((found[cases.labels == k] == k).mean()) for k in range(4)]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_nothing_installed_yet(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="no program was installed"):
        EdgeClient(tmp_path).status()
    with pytest.raises(ModelNotFound):
        EdgeClient(tmp_path).learn(FOURTH[0])
    assert len(EdgeClient(tmp_path).journal) == 0


def test_first_installation(tmp_path: Path) -> None:
    client = EdgeClient(tmp_path)
    report = install(client, 1)
    assert report.switched and report.serving == "1" and report.previous is None
    assert report.candidate_accuracy is not None and report.candidate_accuracy > 0.9
    assert report.previous_accuracy is None
    assert report.fit["fits"] and report.fit["layers_table"][-1]["name"] == "learning"
    assert report.validation_cases == 45 and report.exemplars == 30
    assert json.loads(json.dumps(report.to_json()))["version"] == "1"
    assert VersionFolder(tmp_path).report("1") == report
    assert min(recalls(client)[:3]) > 0.9
    assert client.exemplars().to_bytes() == STORE.to_bytes()
    np.testing.assert_array_equal(
        client.classify_global(HELD_BACK.images),
        tiny_program().predict_potentials(HELD_BACK.images),
    )


def test_a_new_class_end_to_end(tmp_path: Path) -> None:
    client = EdgeClient(tmp_path)
    install(client, 1)
    for case in FOURTH:
        client.learn(case)
    assert client.classes == ALL
    after = recalls(client)
    assert after[3] > 0.6 and min(after[:3]) > 0.9
    with pytest.raises(UnknownLabel, match=NEW):
        client.classify(HELD_BACK.images, CLASSES)
    # the next program does not know the class, the exemplars do
    report = install(client, 2, STORE.with_cases(client.journal.cases(up_to_round=1)))
    assert report.switched and report.classes == ALL
    again = recalls(client)
    assert again[3] > 0.6 and min(again[:3]) > 0.9


def test_restart_with_and_without_save(tmp_path: Path) -> None:
    client = EdgeClient(tmp_path)
    install(client, 1)
    for case in arriving(3, seed=4, round_number=1, codes=ALL)[:-2]:
        client.learn(case)
    learned, images = client.status(), HELD_BACK.images
    assert EdgeClient(tmp_path).status() == learned
    np.testing.assert_array_equal(
        EdgeClient(tmp_path).classify(images, ALL), client.classify(images, ALL)
    )
    client.save()
    for case in arriving(3, seed=4, round_number=1, codes=ALL):
        client.learn(case)  # ten of them are known
    assert client.status()["cases_learned"] == 12
    assert EdgeClient(tmp_path).status() == client.status()
    np.testing.assert_array_equal(
        EdgeClient(tmp_path).classify(images, ALL), client.classify(images, ALL)
    )


def test_a_worse_program_is_not_put_in_service(tmp_path: Path) -> None:
    client = EdgeClient(tmp_path)
    install(client, 1)
    for case in FOURTH:
        client.learn(case)
    before = recalls(client)
    report = install(client, 2, MISLABELLED)
    assert not report.switched and report.serving == "1" and report.previous == "1"
    assert report.candidate_accuracy is not None and report.candidate_accuracy < 0.9
    assert report.previous_accuracy is not None and report.previous_accuracy > 0.9
    assert "45 held-back cases" in report.reason
    for restarted in (client, EdgeClient(tmp_path)):
        assert recalls(restarted) == before  # and nothing learned was lost
        assert restarted.status()["serving"] == "1"
    client.learn(replace(arriving(1, 8, round_number=2)[0]))
    assert install(client, 3).switched


def test_too_few_cases_decide_nothing(tmp_path: Path) -> None:
    client = EdgeClient(tmp_path)
    install(client, 1)
    one_of_each = some_cases(1, seed=2)
    report = install(client, 2, MISLABELLED, held_back=one_of_each)
    assert report.switched
    assert report.candidate_accuracy is not None and report.previous_accuracy is not None
    assert report.candidate_accuracy < report.previous_accuracy - 0.3
    report = install(client, 3, held_back=Cases.empty(32))
    assert report.switched and report.candidate_accuracy is None


def test_rollback(tmp_path: Path) -> None:
    client = EdgeClient(tmp_path)
    install(client, 1)
    with pytest.raises(ModelNotFound, match="no earlier program"):
        client.rollback()
    lenient = EdgeClient(tmp_path, EdgeSettings(tolerance=1.0))
    assert install(lenient, 2, MISLABELLED).switched
    assert np.mean(recalls(lenient)[:3]) < 0.8
    late = [replace(case, round=2) for case in FOURTH]
    for case in late:
        lenient.learn(case)
    assert lenient.rollback() == "1"
    for restarted in (lenient, EdgeClient(tmp_path)):
        assert restarted.status()["version"] == "1"
        assert restarted.status()["cases_learned"] == 8
        assert recalls(restarted)[3] > 0.6 and min(recalls(restarted)[:3]) > 0.9
    assert install(lenient, 3).previous == "1"


def test_rollback_passes_over_versions_with_the_same_program(tmp_path: Path) -> None:
    lenient = EdgeClient(tmp_path, EdgeSettings(tolerance=1.0))
    install(lenient, 1)
    install(lenient, 2, MISLABELLED)
    strict = EdgeClient(tmp_path, EdgeSettings(tolerance=-1.0, evidence=-100.0))
    assert install(strict, 3).serving == "2"
    assert strict.rollback() == "1"


def test_keeps_the_last_three_programs(tmp_path: Path) -> None:
    client = EdgeClient(tmp_path)
    for version in range(1, 7):
        install(client, version)
    assert VersionFolder(tmp_path).names() == ["4", "5", "6"]
    assert sorted(p.name for p in (tmp_path / "versions").iterdir()) == ["4", "5", "6"]


@pytest.mark.parametrize("second_store", [STORE, MISLABELLED])
def test_installing_again_gives_the_same(tmp_path: Path, second_store: ExemplarStore) -> None:
    client = EdgeClient(tmp_path)
    install(client, 1)
    for case in FOURTH:
        client.learn(case)
    client.save()
    first = install(client, 2, second_store)
    fresh = contents(tmp_path / "versions")
    once = tmp_path.with_name(f"{tmp_path.name}-once")
    shutil.copytree(tmp_path, once)
    for case in arriving(3, seed=6, round_number=2):
        client.learn(case)
    client.save()
    assert contents(tmp_path / "versions") != fresh
    for restarted in (client, EdgeClient(tmp_path)):
        assert install(restarted, 2, second_store) == first
        assert contents(tmp_path / "versions") == fresh
    straight = EdgeClient(once)
    again = EdgeClient(tmp_path)
    install(again, 2, second_store)
    for case in arriving(3, seed=6, round_number=2):
        straight.learn(case)
        again.learn(case)
    straight.save()
    again.save()
    assert contents(tmp_path / "versions") == contents(once / "versions")


def test_kill_9_at_any_moment(tmp_path: Path) -> None:
    """The process is killed at each durable step in turn; the rerun ends as if it never was."""
    script = """
import os, signal, sys
from pathlib import Path
import common.files as files
from tests.edge_client.test_service import two_rounds
left = int(sys.argv[2])
real = os.fsync
def counted(descriptor):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    real(descriptor)
os.fsync = counted
two_rounds(Path(sys.argv[1]))
"""
    straight = tmp_path / "straight"
    two_rounds(straight)
    for step in (1, 4, 9, 12, 17, 22, 26, 31):
        killed = tmp_path / f"killed-{step}"
        ran = subprocess.run(
            [sys.executable, "-c", script, str(killed), str(step)], capture_output=True, timeout=120
        )
        assert ran.returncode == -9, ran.stderr
        two_rounds(killed)
        assert contents(killed) == contents(straight), step


def two_rounds(folder: Path) -> None:
    client = EdgeClient(folder)
    for number in (1, 2):
        install(client, number, STORE.with_cases(client.journal.cases(up_to_round=number - 1)))
        for case in arriving(1, seed=10 + number, round_number=number, codes=ALL):
            client.learn(case)
        client.save()


def test_damaged_state_is_named_and_rollback_still_works(tmp_path: Path) -> None:
    client = EdgeClient(tmp_path)
    install(client, 1)
    install(client, 2)
    folder = tmp_path / "versions" / "2"
    learned = next(folder.glob("learned-*.fbz"))
    learned.write_bytes(learned.read_bytes()[:-200])
    with pytest.raises(StateDamaged, match="version 2"):
        EdgeClient(tmp_path).status()
    learned.unlink()
    with pytest.raises(StateDamaged, match="learned-"):
        EdgeClient(tmp_path).status()
    (folder / "state.json").write_text("[]")
    with pytest.raises(StateDamaged, match=r"state\.json"):
        EdgeClient(tmp_path).status()
    assert EdgeClient(tmp_path).rollback() == "1"
    assert min(recalls(EdgeClient(tmp_path))[:3]) > 0.9


def test_images_of_another_size(tmp_path: Path) -> None:
    client = EdgeClient(tmp_path)
    with pytest.raises(DataUnfit, match="64"):
        install(client, 1, held_back=replace(HELD_BACK, images=np.zeros((45, 64, 64, 3), np.uint8)))
    install(client, 1)
    case = LabelledCase("x", "x", "red", 1, np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(DataUnfit, match="64"):
        client.learn(case)
    assert len(client.journal) == 0


def test_version_names(tmp_path: Path) -> None:
    for name in ("", "../x", ".hidden", "a/b", "a b"):
        with pytest.raises(SettingsError, match="version name"):
            EdgeClient(tmp_path).install(tiny_program(), name, 1, CLASSES, STORE, HELD_BACK)


def test_an_empty_store(tmp_path: Path) -> None:
    empty = ExemplarStore.initial(Cases.empty(32), CLASSES)
    with pytest.raises(DataUnfit):
        install(EdgeClient(tmp_path), 1, empty)


def test_answers_over_all_symmetries(tmp_path: Path) -> None:
    single, mean = (
        EdgeClient(tmp_path / "1"),
        EdgeClient(tmp_path / "8", EdgeSettings(tolerance=1.0, all_symmetries=True)),
    )
    install(single, 1)
    install(mean, 1)
    images = some_cases(5, seed=98, classes=3).images
    found = mean.decide(images, CLASSES)
    views = [np.rot90(v, k, (1, 2)) for v in (images, images[:, :, ::-1]) for k in range(4)]
    expected = np.mean([single.decide(view, CLASSES) for view in views], axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert not np.allclose(found, single.decide(images, CLASSES), rtol=1e-3)
    turned = mean.decide(np.rot90(images, 1, (1, 2)), CLASSES)
    np.testing.assert_allclose(turned, found, rtol=1e-5)
    # The version keeps what its calibration was fitted with, whoever opens the folder.
    assert mean.calibration() != single.calibration()
    np.testing.assert_array_equal(EdgeClient(tmp_path / "8").decide(images, CLASSES), found)
    assert mean.status()["all_symmetries"] and not single.status()["all_symmetries"]


def test_versions_from_before_symmetries_answer_by_single_views(tmp_path: Path) -> None:
    install(EdgeClient(tmp_path), 1)
    images = some_cases(2, seed=98, classes=3).images
    found = EdgeClient(tmp_path).decide(images, CLASSES)
    meta = tmp_path / "versions" / "1" / "meta.json"
    value = json.loads(meta.read_text())
    del value["all_symmetries"]
    meta.write_text(json.dumps(value))
    np.testing.assert_array_equal(EdgeClient(tmp_path).decide(images, CLASSES), found)


def test_a_program_of_the_sites_own_is_known_as_such(tmp_path: Path) -> None:
    client = EdgeClient(tmp_path)
    own = client.install(tiny_program(), "1", 1, CLASSES, STORE, HELD_BACK, made_of="ab")
    assert own.made_of == "ab" and EdgeClient(tmp_path).status()["fine_tuned"]
    kept = install(client, 2, MISLABELLED)
    assert not kept.switched and kept.made_of == "ab"  # the site's own goes on serving
    assert client.status()["fine_tuned"]
    assert not install(client, 3).made_of and not client.status()["fine_tuned"]
    meta = tmp_path / "versions" / "3" / "meta.json"
    value = json.loads(meta.read_text())
    del value["made_of"]  # as older versions' are
    meta.write_text(json.dumps(value))
    assert not EdgeClient(tmp_path).status()["fine_tuned"]


def test_both_heads_decide_together(tmp_path: Path) -> None:
    client = EdgeClient(tmp_path)
    install(client, 1)
    cases = some_cases(20, seed=98, classes=3)
    scores = client.decide(cases.images, CLASSES)
    assert scores.shape == (60, 3) and (scores.argmax(axis=1) == cases.labels).mean() > 0.9
    for case in FOURTH:
        client.learn(case)
    with pytest.raises(UnknownLabel, match=NEW):
        client.decide(cases.images, CLASSES)
    new = some_cases(20, seed=97, classes=4)
    found = EdgeClient(tmp_path).decide(new.images, (NEW, *CLASSES)).argmax(axis=1)
    assert (found[new.labels == 3] == 0).mean() > 0.4
    assert (found[new.labels < 3] == new.labels[new.labels < 3] + 1).mean() > 0.8


def test_foreign_neurons_of_a_class_that_is_taught_here_are_limited_too(tmp_path: Path) -> None:
    """Hostile ones would win all cases of the other classes."""
    client = EdgeClient(tmp_path)
    install(client, 1)
    before = recalls(client)[:3]
    head = client.in_service().head
    own = head.own_neurons()
    greedy = np.full(1, -head.learner.num_weights, np.int32)
    assert client.adopt({"red": Neurons(own["green"].weights, greedy)}) == 1
    assert np.mean(recalls(client)[:3]) > np.mean(before) - 0.2
    assert recalls(client)[1] > 0.6
    again = recalls(EdgeClient(tmp_path))
    assert again == recalls(client)
    assert client.adopt({}) == 0 and recalls(client)[:3] == before
