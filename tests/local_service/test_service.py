"""What the service answers and learns, over its Unix socket in a process of its own."""

import hashlib
import resource
import time
from pathlib import Path

import numpy as np
import pytest

from common.errors import (
    DataNotFound,
    DataUnfit,
    ModelNotFound,
    ServiceUnavailable,
    SettingsError,
    StateDamaged,
    StorageFull,
    UnknownLabel,
)
from common.files import write_atomically
from edge_client.case_journal import CaseJournal, LabelledCase
from edge_client.exemplars import ExemplarStore
from edge_client.local_service import fedqana_edge_pb2 as pb
from edge_client.local_service.client import LocalServiceClient
from edge_client.service import EdgeClient
from edge_client.site_calibration import SiteCalibration
from edge_client.state_lock import state_in_use
from tests.edge_client.cases import CLASSES, NEW, arriving, some_cases
from tests.edge_client.test_service import MISLABELLED, install
from tests.local_service.running import (
    CASES,
    HELD_BACK,
    PICTURES,
    Service,
    decided,
    lenient,
    make_home,
    png,
    running,
    scores_of,
)

FOURTH = arriving(8, seed=3, round_number=1, codes=(NEW,))


def test_answers_are_those_of_the_edge_client(client: LocalServiceClient, home: Path) -> None:
    direct = EdgeClient(home / "state", read_only=True)
    for image in PICTURES:
        response = client.classify(png(image))
        assert scores_of(response) == decided(direct, image)
        probabilities = [score.probability for score in response.scores]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1)
        assert response.answer == response.scores[0].code
        assert response.decided_by == pb.HEAD_BOTH
        assert response.refer == (probabilities[0] < 0.7)
        assert response.state.model_version == response.state.program_version == "1"
        assert "software backend" in response.backend


def test_probabilities_and_referral_are_calibrated(client: LocalServiceClient, home: Path) -> None:
    fitted = EdgeClient(home / "state", read_only=True).calibration()
    status = client.status()
    assert status.calibration_lesions == fitted.lesions == 45 and not status.not_calibrated
    assert status.temperature == fitted.temperature != 1
    first = client.classify(png(PICTURES[0]))
    assert first.calibrated and first.answer == "red"
    # the same scores at a site where the answered class is rare
    rare = SiteCalibration(1.5, {"red": 0, "green": 10**6, "blue": 0}, 50, "")
    file = home / "state" / "versions" / "1" / "calibration.json"
    write_atomically(file, rare.to_bytes())
    second = client.classify(png(PICTURES[0]))
    assert scores_of(second) == scores_of(first) and second.answer == "red"
    expected = rare.probabilities(
        np.array([[s.score for s in second.scores]], np.float32), [s.code for s in second.scores]
    )[0]
    assert [s.probability for s in second.scores] == pytest.approx(expected)
    assert expected[0] < 0.7 and pb.REFER_REASON_LOW_CONFIDENCE in second.refer_reasons
    write_atomically(file, SiteCalibration(note="why").to_bytes())
    third = client.classify(png(PICTURES[0]))
    assert not third.calibrated and client.status().not_calibrated == "why"


def test_a_new_class(client: LocalServiceClient, home: Path) -> None:
    with pytest.raises(UnknownLabel, match=f"'{NEW}' is no class of this site"):
        client.learn(png(FOURTH[0].image), NEW)
    assert client.list_cases().total == 0
    added = client.add_class(NEW)
    assert added.added and list(added.codes) == [*CLASSES, NEW]
    assert not client.add_class(NEW).added and not client.add_class("red").added
    with pytest.raises(UnknownLabel, match="is no class code"):
        client.add_class("Melanoma!")
    known = {c.code: (c.in_program, c.on_chip) for c in client.status().classes}
    assert known[NEW] == (False, False) and known["red"] == (True, True)
    before = {score.code for score in client.classify(png(FOURTH[0].image)).scores}
    assert NEW not in before
    for case in FOURTH:
        assert client.learn(png(case.image), case.code, case.case_id, case.lesion_id).learned
    responses = [client.classify(png(case.image)) for case in FOURTH]
    won = [r for r in responses if r.answer == NEW]
    assert len(won) > 4
    for response in won:
        assert response.decided_by == pb.HEAD_CHIP
        assert pb.REFER_REASON_NEW_CLASS in response.refer_reasons and response.refer
    direct = EdgeClient(home / "state", read_only=True)
    assert scores_of(responses[0]) == decided(direct, FOURTH[0].image)
    assert {c.code: c.on_chip for c in client.status().classes}[NEW]


def test_a_class_that_was_added_is_still_there_later(home: Path) -> None:
    for expected in (True, False):
        with running(home) as service, service.client() as client:
            assert client.add_class(NEW).added is expected


def test_a_class_that_the_chip_was_not_taught(tmp_path: Path) -> None:
    state = make_home(tmp_path / "home", installed=False)
    cases = some_cases(15, seed=1)
    without = cases.subset(np.flatnonzero(cases.labels != CLASSES.index("red")))
    install(lenient(state), 1, ExemplarStore.initial(without, CLASSES, per_class=10))
    with running(tmp_path / "home") as service, service.client() as client:
        heads = {r.answer: r.decided_by for r in (client.classify(png(i)) for i in PICTURES)}
    assert heads["red"] == pb.HEAD_PROGRAM
    assert heads["green"] == heads["blue"] == pb.HEAD_BOTH


def test_learning(client: LocalServiceClient, home: Path) -> None:
    states = {client.status().state.head}
    for number, case in enumerate(CASES, start=1):
        result = client.learn(png(case.image), case.code, case.case_id, case.lesion_id)
        assert (result.case_id, result.learned, result.diagnosis) == (case.case_id, True, case.code)
        response = client.classify(png(PICTURES[0]))
        assert response.state == result.state  # the next answer reflects it
        assert client.status().cases_learned == number
        states.add(result.state.head)
    assert len(states) > 2  # a full store keeps some cases out
    direct = EdgeClient(home / "state", read_only=True)
    for image in PICTURES:
        assert scores_of(client.classify(png(image))) == decided(direct, image)
    assert {c.round for c in client.list_cases().cases} == {1}


def test_duplicates(client: LocalServiceClient) -> None:
    picture = png(CASES[0].image)
    first = client.learn(picture, "red")
    assert first.learned and first.case_id == hashlib.sha256(picture).hexdigest()
    again = client.learn(picture, "green")
    assert not again.learned and again.diagnosis == "red" and again.state == first.state
    (listed,) = client.list_cases().cases
    assert (listed.case_id, listed.lesion_id) == (first.case_id, first.case_id)
    client.correct(first.case_id, None)
    forgotten = client.learn(picture, "red")
    assert not forgotten.learned and forgotten.diagnosis == ""
    assert client.list_cases().total == 0


def test_corrections(client: LocalServiceClient, home: Path) -> None:
    empty = client.status().state
    for case in CASES[:4]:
        client.learn(png(case.image), case.code, case.case_id)
    wrong = CASES[0].case_id
    assert client.correct(wrong, "green").changed
    assert not client.correct(wrong, "green").changed
    assert [c.diagnosis for c in client.list_cases().cases if c.case_id == wrong] == ["green"]
    direct = EdgeClient(home / "state", read_only=True)
    assert scores_of(client.classify(png(PICTURES[0]))) == decided(direct, PICTURES[0])
    for case in CASES[:4]:
        after = client.correct(case.case_id, None)
    assert after.state == empty and client.status().cases_total == 0
    with pytest.raises(DataNotFound, match="no case of this id"):
        client.correct("nobody", "red")
    with pytest.raises(UnknownLabel, match="'rde' is no class"):
        client.correct(wrong, "rde")


def test_pages(client: LocalServiceClient) -> None:
    for case in CASES:
        client.learn(png(case.image), case.code, case.case_id)
    ids, token = [], ""
    while True:
        page = client.list_cases(5, token)
        assert page.total == len(CASES) and len(page.cases) <= 5
        ids += [case.case_id for case in page.cases]
        token = page.next_page_token
        if not token:
            break
    assert ids == [case.case_id for case in CASES]
    assert len(client.list_cases(len(CASES)).cases) == len(CASES)
    with pytest.raises(SettingsError, match="at most 1000"):
        client.list_cases(1001)
    with pytest.raises(SettingsError, match="no longer valid"):
        client.list_cases(5, "nobody")


def test_rollback(client: LocalServiceClient, home: Path) -> None:
    with pytest.raises(ModelNotFound, match="no earlier program"):
        client.rollback()
    first = client.status().state
    install(lenient(home / "state"), 2, MISLABELLED)
    assert client.classify(png(PICTURES[0])).state.model_version == "2"
    client.learn(png(CASES[0].image), CASES[0].code, CASES[0].case_id)
    back = client.rollback()
    assert back.state.model_version == "1" and client.status().cases_learned == 1
    assert client.classify(png(PICTURES[0])).state == back.state
    client.correct(CASES[0].case_id, None)
    assert client.status().state == first


def test_another_process_installs(client: LocalServiceClient, home: Path) -> None:
    picture = png(PICTURES[0])
    before = client.classify(picture)
    with state_in_use(home / "state"):
        trainer = lenient(home / "state")
        assert client.status().installing
        install(trainer, 2, MISLABELLED)
        during = client.classify(picture)
        assert during == before  # the whole old state, the lock is still held
        started = time.monotonic()
        with pytest.raises(ServiceUnavailable, match="a new version is being installed"):
            client.learn(png(CASES[0].image), CASES[0].code, CASES[0].case_id)
        assert 1.5 < time.monotonic() - started < 6
        assert len(CaseJournal(home / "state" / "cases.journal", read_only=True)) == 0
    after = client.classify(picture)
    assert after.state.model_version == "2" and scores_of(after) == decided(trainer, PICTURES[0])
    assert client.learn(png(CASES[0].image), CASES[0].code, CASES[0].case_id).learned
    assert client.list_cases().cases[0].round == 2 and not client.status().installing


def test_started_while_a_version_is_being_installed(home: Path) -> None:
    with state_in_use(home / "state"), running(home) as service, service.client() as client:
        assert client.status().installing
        response = client.classify(png(PICTURES[0]))
        direct = EdgeClient(home / "state", read_only=True)
        assert scores_of(response) == decided(direct, PICTURES[0])


def test_a_full_disk(service: Service, client: LocalServiceClient, home: Path) -> None:
    """Nothing is acknowledged that is not written, and what is written is learned in the end."""

    def limit_files_to(size: int) -> None:
        most = resource.RLIM_INFINITY
        resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (size, most))

    def learn(case: LabelledCase) -> bool:
        return client.learn(png(case.image), case.code, case.case_id).learned

    first, second, third = CASES[2], CASES[5], CASES[11]
    before = client.classify(png(PICTURES[0]))
    limit_files_to(1000)
    with pytest.raises(StorageFull, match="cannot write"):
        learn(first)
    with pytest.raises(StorageFull):
        for number in range(30):
            client.add_class(f"{number:032d}")
    assert client.classify(png(PICTURES[0])) == before and client.list_cases().total == 0
    limit_files_to(resource.RLIM_INFINITY)
    assert learn(first)
    limit_files_to(2 * (home / "state" / "cases.journal").stat().st_size + 100)
    with pytest.raises(StorageFull):
        learn(second)  # the journal has it, the learned program found no room
    assert client.list_cases().total == 2
    assert client.classify(png(PICTURES[0])).state.model_version == "1"
    limit_files_to(resource.RLIM_INFINITY)
    assert not learn(second)
    assert client.status().cases_learned == 2 and client.status().problem == ""
    direct = EdgeClient(home / "state", read_only=True)
    assert scores_of(client.classify(png(PICTURES[0]))) == decided(direct, PICTURES[0])
    assert learn(third) and client.status().cases_learned == 3


def test_what_judges_programs_is_never_learned(client: LocalServiceClient) -> None:
    with pytest.raises(DataUnfit, match="held back to judge programs"):
        client.learn(png(CASES[0].image), "red", "fresh", HELD_BACK.lesion_ids[0])
    with pytest.raises(DataUnfit, match="held back to judge programs"):
        client.learn(png(HELD_BACK.images[0]), "red")  # the same picture under another name
    assert client.list_cases().total == 0


@pytest.mark.parametrize("name", ["x" * 129, "a\nb", " a", "a\x00"])
def test_unusable_ids(client: LocalServiceClient, name: str) -> None:
    for names in ((name, ""), ("a", name)):
        with pytest.raises(DataUnfit, match="id is longer than 128"):
            client.learn(png(CASES[0].image), "red", *names)


def test_a_damaged_version_in_service(home: Path) -> None:
    install(lenient(home / "state"), 2, MISLABELLED)
    program = home / "state" / "versions" / "2" / "program.fbz"
    program.write_bytes(program.read_bytes()[:-1] + b"x")
    with running(home) as service, service.client() as client:
        assert "version 2 of this site is damaged" in client.status().problem
        for ask in (
            lambda: client.classify(png(PICTURES[0])),
            lambda: client.learn(png(CASES[0].image), "red"),
        ):
            with pytest.raises(StateDamaged, match="fedqana client rollback"):
                ask()
        assert client.rollback().state.model_version == "1"
        assert client.classify(png(PICTURES[0])).state.model_version == "1"
        assert client.status().problem == ""


def test_other_programs_than_the_first(client: LocalServiceClient, home: Path) -> None:
    """A state folder that someone takes away, and one that is damaged."""
    good = client.classify(png(PICTURES[0]))
    learned = next((home / "state" / "versions" / "1").glob("learned-*.fbz"))
    content = learned.read_bytes()
    learned.write_bytes(content[:-1] + b"x")
    state = home / "state" / "versions" / "1" / "state.json"
    state.write_bytes(state.read_bytes())  # as an installation would touch it
    assert client.classify(png(PICTURES[0])) == good  # an older whole state answers
    assert "is damaged" in client.status().problem
    learned.write_bytes(content)
    state.write_bytes(state.read_bytes())
    assert client.classify(png(PICTURES[0])) == good and client.status().problem == ""
    (home / "state" / "current").unlink()
    with pytest.raises(ModelNotFound):
        client.classify(png(PICTURES[0]))
