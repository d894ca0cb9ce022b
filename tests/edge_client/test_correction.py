"""A label that was wrong is unlearned: afterwards all is as if it had never been there."""

from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import DataUnfit
from edge_client.case_journal import CaseJournal, LabelledCase
from edge_client.chip_head import LearningRule
from edge_client.service import EdgeClient, EdgeSettings
from tests.edge_client.cases import NEW, arriving
from tests.edge_client.test_service import install, recalls

CASES = arriving(4, 3, round_number=1)
WRONG = 3  # of the class that is new


def client_after(
    folder: Path, cases: list[LabelledCase], rule: LearningRule = "prototypes"
) -> EdgeClient:
    client = EdgeClient(folder, EdgeSettings(rule=rule))
    install(client, 1)
    for case in cases:
        client.learn(case)
    client.save()
    return client


def learned_file(folder: Path, version: str = "1") -> bytes:
    (file,) = (folder / "versions" / version).glob("learned-*.fbz")
    return file.read_bytes()


@pytest.mark.parametrize("rule", ["prototypes", "akida"])
@pytest.mark.parametrize("wrong", [0, 5, len(CASES) - 1])
def test_a_forgotten_case_leaves_no_trace(tmp_path: Path, rule: LearningRule, wrong: int) -> None:
    never = client_after(tmp_path / "never", [c for i, c in enumerate(CASES) if i != wrong], rule)
    client = client_after(tmp_path / "once", CASES, rule)
    assert client.correct(CASES[wrong].case_id, None)
    assert client.classes == never.classes
    assert learned_file(tmp_path / "once") == learned_file(tmp_path / "never")
    reopened = EdgeClient(tmp_path / "once", EdgeSettings(rule=rule))
    assert recalls(reopened) == recalls(never)
    assert reopened.status()["cases_learned"] == len(CASES) - 1


@pytest.mark.parametrize("rule", ["prototypes", "akida"])
def test_a_corrected_case_counts_with_its_right_label(tmp_path: Path, rule: LearningRule) -> None:
    right = client_after(tmp_path / "right", CASES, rule)
    mistaken = [replace(c, code="blue") if i == WRONG else c for i, c in enumerate(CASES)]
    client = client_after(tmp_path / "mistaken", mistaken, rule)
    assert learned_file(tmp_path / "right") != learned_file(tmp_path / "mistaken")
    assert client.correct(CASES[WRONG].case_id, CASES[WRONG].code)
    assert not client.correct(CASES[WRONG].case_id, CASES[WRONG].code)  # nothing changes any more
    assert learned_file(tmp_path / "right") == learned_file(tmp_path / "mistaken")
    assert recalls(client) == recalls(right)


def test_a_class_that_was_a_mistake_disappears(tmp_path: Path) -> None:
    client = client_after(tmp_path, [replace(CASES[0], code=NEW)])
    assert NEW in client.classes
    client.correct(CASES[0].case_id, CASES[0].code)
    assert NEW not in client.classes and NEW not in EdgeClient(tmp_path).classes


def test_an_earlier_rounds_case_is_unlearned_too(tmp_path: Path) -> None:
    client = client_after(tmp_path / "once", CASES)
    install(client, 2)
    client.correct(CASES[3].case_id, None)
    never = client_after(tmp_path / "never", [c for i, c in enumerate(CASES) if i != 3])
    install(never, 2)
    once = learned_file(tmp_path / "once", "2")
    assert once == learned_file(tmp_path / "never", "2")
    install(client, 3)
    install(never, 3)
    assert learned_file(tmp_path / "once", "3") == learned_file(tmp_path / "never", "3")


def test_a_killed_client_has_the_correction(tmp_path: Path) -> None:
    """The journal is written first: what was learned before is made anew on opening."""
    client_after(tmp_path / "once", CASES)
    before = learned_file(tmp_path / "once")
    CaseJournal(tmp_path / "once" / "cases.journal").correct(CASES[WRONG].case_id, None)
    never = client_after(tmp_path / "never", [c for i, c in enumerate(CASES) if i != WRONG])
    reopened = EdgeClient(tmp_path / "once")
    assert recalls(reopened) == recalls(never)
    reopened.save()
    assert learned_file(tmp_path / "once") != before
    assert learned_file(tmp_path / "once") == learned_file(tmp_path / "never")


def test_a_case_that_nobody_learned(tmp_path: Path) -> None:
    client = client_after(tmp_path, CASES[:1])
    with pytest.raises(DataUnfit, match="no case 'x' was learned"):
        client.correct("x", "blue")


def test_corrections_in_the_journal(tmp_path: Path) -> None:
    journal = CaseJournal(tmp_path / "journal")
    for case in CASES:
        journal.append(case)
    assert journal.correct(CASES[0].case_id, "blue")
    assert journal.correct(CASES[1].case_id, None)
    for opened in (journal, CaseJournal(tmp_path / "journal")):
        first = opened.case(CASES[0].case_id)
        assert first is not None and first.code == "blue"
        assert opened.case(CASES[1].case_id) is None
        assert [c.case_id for c in opened.cases()] == [c.case_id for c in CASES if c != CASES[1]]
        assert opened.facts() == [case.facts for case in opened.cases()]
        assert len(opened) == len(CASES)
        assert not opened.append(CASES[1])  # known, and forgotten
    assert journal.correct(CASES[1].case_id, "red")  # and remembered again
    with pytest.raises(KeyError):
        journal.correct("x", None)


def test_a_torn_correction_never_was(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = CaseJournal(path)
    journal.append(CASES[0])
    whole = path.stat().st_size
    journal.correct(CASES[0].case_id, "blue")
    content = path.read_bytes()
    for length in range(whole, len(content)):
        path.write_bytes(content[:length])
        stored = CaseJournal(path).case(CASES[0].case_id)
        assert stored is not None and stored.code == CASES[0].code
