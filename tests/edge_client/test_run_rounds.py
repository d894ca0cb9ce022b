"""A site's rounds go on from run to run, whatever the order in which runs come and go."""

from pathlib import Path

import numpy as np
import pytest

from common.errors import StateDamaged
from edge_client.case_journal import CaseJournal, LabelledCase
from edge_client.run_rounds import SiteRounds


def test_a_first_run_has_the_numbers_of_its_own(tmp_path: Path) -> None:
    rounds = SiteRounds(tmp_path, "a")
    assert [rounds.number(r) for r in range(5)] == [0, 1, 2, 3, 4]


def test_a_later_run_comes_after_it_and_a_resumed_one_after_that(tmp_path: Path) -> None:
    first, second = SiteRounds(tmp_path, "a"), SiteRounds(tmp_path, "b")
    assert [first.number(r) for r in (1, 2)] == [1, 2]
    assert [second.number(r) for r in (0, 1, 2)] == [2, 3, 4]
    assert first.number(3) == 5, "an older run that goes on is the newest thing at the site"
    assert second.number(3) == 6
    assert [first.number(r) for r in (1, 2, 3)] == [1, 2, 5], "asked again, the same"


def test_it_is_remembered_by_the_next_process(tmp_path: Path) -> None:
    before = [SiteRounds(tmp_path, run).number(r) for run in "ab" for r in (1, 2)]
    assert [SiteRounds(tmp_path, run).number(r) for run in "ab" for r in (1, 2)] == before


def test_another_coordinators_run_of_the_same_name_is_another_run(tmp_path: Path) -> None:
    assert SiteRounds(tmp_path, "a", "one").number(1) == 1
    assert SiteRounds(tmp_path, "a", "two").number(1) == 2


def test_what_is_in_the_journal_is_before_the_first_run(tmp_path: Path) -> None:
    case = LabelledCase("c", "l", "mel", 7, np.zeros((2, 2, 3), np.uint8))
    assert CaseJournal(tmp_path / "cases.journal").append(case)
    rounds = SiteRounds(tmp_path, "a")
    assert rounds.number(0) == 7 and rounds.number(1) == 8


def test_versions_of_other_runs_have_no_number_in_this_one(tmp_path: Path) -> None:
    rounds = SiteRounds(tmp_path, "a.b")
    assert rounds.version(3) == "a.b.3"
    assert rounds.run_version("a.b.3") == 3
    assert rounds.run_version("a.3") == rounds.run_version("x.a.b.3") == 0


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    SiteRounds(tmp_path, "a").number(1)
    (tmp_path / "rounds" / "runs.json").write_text("{")
    with pytest.raises(StateDamaged, match=r"runs\.json"):
        SiteRounds(tmp_path, "a").number(2)
