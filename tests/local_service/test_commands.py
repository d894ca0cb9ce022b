"""`fedqana client` beside a running service."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import fedqana
from tests.edge_client.cases import CLASSES, NEW
from tests.edge_client.test_service import MISLABELLED, install
from tests.local_service.running import (
    CASES,
    HELD_BACK,
    PICTURES,
    Service,
    lenient,
    make_home,
    png,
    running,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the client's home and some pictures."""
    folder = tmp_path_factory.mktemp("site")
    make_home(folder / "fedqana-client")
    for number, image in enumerate(PICTURES[:4]):
        (folder / f"{number}.png").write_bytes(png(image))
    (folder / "case.png").write_bytes(png(CASES[0].image))
    (folder / "held.png").write_bytes(png(HELD_BACK.images[0]))
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n")
    return folder


@pytest.fixture(scope="module")
def service(place: Path) -> Iterator[Service]:
    with running(place / "fedqana-client") as found:
        yield found


def told(place: Path, *arguments: str) -> str:
    ran = fedqana("client", *arguments, folder=place)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def refused(place: Path, status: int, *arguments: str) -> str:
    ran = fedqana("client", *arguments, folder=place)
    assert ran.returncode == status and ran.stdout == ""
    assert len(ran.stderr.splitlines()) == 1
    return ran.stderr


def test_classify(place: Path, service: Service) -> None:
    rows = json.loads(told(place, "classify", "0.png", "1.png", "--json"))
    assert [row["image"] for row in rows] == ["0.png", "1.png"]
    with service.client() as client:
        assert rows[0]["answer"] == client.classify(png(PICTURES[0])).answer
    assert rows[0]["decided_by"] == "HEAD_BOTH" and rows[0]["refer"] in (False, True)
    lines = told(place, "classify", "0.png", "1.png").splitlines()
    assert lines[0].startswith(f"0.png: {rows[0]['answer']} ") and len(lines) == 2


def test_learn_list_correct(place: Path, service: Service) -> None:
    case = ("learn", "case.png", "--diagnosis", "red", "--case", "c1", "--lesion", "l1")
    assert told(place, *case) == "learned case c1 as red\n"
    assert "known already and counts as red" in told(place, *case)
    assert not json.loads(told(place, *case, "--json"))["learned"]
    expected = [{"case_id": "c1", "diagnosis": "red", "round": 1, "lesion_id": "l1"}]
    assert json.loads(told(place, "cases", "--json")) == expected
    assert told(place, "cases").split() == ["c1", "red", "round", "1", "lesion", "l1"]
    assert told(place, "correct", "c1", "--diagnosis", "blue") == "case c1: blue\n"
    assert told(place, "correct", "c1", "--diagnosis", "blue") == "case c1: was blue already\n"
    assert json.loads(told(place, "correct", "c1", "--forget", "--json"))["changed"]
    assert told(place, "cases") == "no cases learned yet\n"
    assert "was forgotten" in told(place, *case)


def test_add_class(place: Path, service: Service) -> None:
    case = ("learn", "0.png", "--diagnosis", NEW)
    assert "add-class" in refused(place, 12, *case)
    assert told(place, "add-class", NEW) == f"{NEW} added; classes: {', '.join((*CLASSES, NEW))}\n"
    assert not json.loads(told(place, "add-class", NEW, "--json"))["added"]
    assert f"{NEW} (no case yet)" in told(place, "status")
    told(place, *case)
    assert f"{NEW} (on the chip)" in told(place, "status")


def test_status_and_rollback(place: Path, service: Service) -> None:
    assert "no earlier program" in refused(place, 20, "rollback")
    install(lenient(place / "fedqana-client" / "state"), 2, MISLABELLED)
    status = json.loads(told(place, "status", "--json"))
    assert status["state"]["model_version"] == "2" and status["round"] == 2
    assert status["installing"] is False and status["problem"] == ""
    assert "version 1 is in service again" in told(place, "rollback")
    assert "version:    1 (round 1)" in told(place, "status")
    state = str(place / "fedqana-client" / "state")
    assert json.loads(told(place, "status", "--state", state, "--json"))["version"] == "1"


def test_refusals_are_one_line_with_their_status(place: Path, service: Service) -> None:
    assert "no image" in refused(place, 10, "classify", "nowhere.png")
    assert "broken.png: the picture" in refused(place, 11, "classify", "broken.png")
    both = fedqana("client", "classify", "0.png", "broken.png", "--json", folder=place)
    first, second = json.loads(both.stdout)
    assert both.returncode == 11 and first["answer"] and "the picture" in second["error"]
    assert "held back" in refused(place, 13, "learn", "held.png", "--diagnosis", "red")
    assert "no case of this id" in refused(place, 10, "correct", "nobody", "--forget")
    for wrong in ((), ("--forget", "--diagnosis", "red")):
        assert "either --diagnosis or --forget" in refused(place, 2, "correct", "c1", *wrong)


def test_without_a_service(tmp_path: Path, place: Path) -> None:
    make_home(tmp_path / "home")
    for command in (("status",), ("cases",), ("rollback",), ("classify", "x.png")):
        (tmp_path / "x.png").write_bytes(b"")
        told_what = refused(tmp_path, 53, *command, "--home", "home")
        assert "'fedqana client start'" in told_what
    assert "no client folder" in refused(tmp_path, 10, "status")


def test_the_home_may_come_from_the_environment(
    place: Path, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDQANA_CLIENT_HOME", str(place / "fedqana-client"))
    assert "version" in told(tmp_path, "status")
    assert os.listdir(tmp_path) == []  # noqa: PTH208
