"""One process at a time changes a site's state; looking at it changes nothing."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.errors import StateInUse
from edge_client.case_journal import CaseJournal
from edge_client.service import EdgeClient
from edge_client.state_lock import state_in_use
from tests.cli.command import ROOT, fedqana
from tests.edge_client.cases import CLASSES, arriving, some_cases
from tests.edge_client.test_service import contents, install

HOLD = """
import sys, time
from pathlib import Path
from edge_client.state_lock import state_in_use
with state_in_use(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_waits_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    install(EdgeClient(tmp_path), 1)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(StateInUse, match="another process"), state_in_use(tmp_path, wait=0.2):
        pass
    with pytest.raises(StateInUse), state_in_use(tmp_path, wait=0.2, shared=True):
        pass
    refused = fedqana("client", "status", "--state", tmp_path)
    assert refused.returncode == 44 and refused.stderr.startswith("fedqana: another process")
    holder.kill()
    holder.wait()
    with state_in_use(tmp_path, wait=5.0):
        pass


def test_looking_leaves_an_installation_under_way_alone(tmp_path: Path) -> None:
    client = EdgeClient(tmp_path)
    install(client, 1)
    (tmp_path / "versions" / ".2.partial").mkdir()
    with (tmp_path / "cases.journal").open("ab") as stream:
        stream.write(b"CASE half a record")
    before = contents(tmp_path)
    for command in ("status", "versions"):
        assert fedqana("client", command, "--state", tmp_path).returncode == 0
    assert EdgeClient(tmp_path, read_only=True).classes == CLASSES
    assert contents(tmp_path) == before and (tmp_path / "versions" / ".2.partial").is_dir()


def test_a_journal_that_is_not_there_is_not_made_by_looking(tmp_path: Path) -> None:
    journal = CaseJournal(tmp_path / "nowhere" / "cases.journal", read_only=True)
    assert len(journal) == 0 and list(journal.cases()) == []
    assert not (tmp_path / "nowhere").exists()


def test_a_case_keeps_its_first_label_on_the_chip_too(tmp_path: Path) -> None:
    case = arriving(1, seed=8, round_number=1)[0]
    client = EdgeClient(tmp_path)
    install(client, 1)
    client.learn(case)
    client.save()
    install(client, 2)
    other = next(code for code in CLASSES if code != case.code)
    before, scores = client.status(), client.classify(some_cases(9, seed=3).images, CLASSES)
    client.learn(replace(case, code=other, round=2))
    again = EdgeClient(tmp_path)
    assert [c.code for c in again.journal.cases()] == [case.code]
    assert client.status() == before == again.status()
    images = some_cases(9, seed=3).images
    np.testing.assert_array_equal(again.classify(images, CLASSES), scores)
    np.testing.assert_array_equal(client.classify(images, CLASSES), scores)


def test_a_case_of_this_version_keeps_its_first_label_too(tmp_path: Path) -> None:
    case = arriving(1, seed=8, round_number=1)[0]
    other = next(code for code in CLASSES if code != case.code)
    one, two = EdgeClient(tmp_path / "one"), EdgeClient(tmp_path / "two")
    for client in (one, two):
        install(client, 1)
    one.journal.append(case)  # as if it had been killed before the chip learned it
    one.learn(replace(case, code=other))
    two.learn(case)
    images = some_cases(9, seed=3).images
    np.testing.assert_array_equal(one.classify(images, CLASSES), two.classify(images, CLASSES))
