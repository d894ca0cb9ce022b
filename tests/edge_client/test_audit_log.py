"""The chain of the audit log: every change is found, and a crash loses no line."""

import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import DataNotFound, StateDamaged, StorageFull
from edge_client.audit_lines import AuditLine, from_bytes
from edge_client.audit_log import HEAD, AuditLog, entries, verify
from edge_client.commands.client import client
from edge_client.policy import AUDIT_LOG
from tests.cli.command import ROOT

N = 6


def append(home: Path, number: int = 0, most_bytes: int = 2**20) -> AuditLine:
    return AuditLog(home, most_bytes).append(
        kind="train",
        run="demo",
        round_number=number,
        size=1000 + number,
        sha256=f"{number:064x}",
        contents=("loss", "weights"),
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for number in range(1, N + 1):
        append(tmp_path, number)
    return tmp_path


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log over three files."""
    folder = tmp_path_factory.mktemp("kept")
    for number in range(1, N + 1):
        append(folder, number, most_bytes=1000)
    assert len(list(folder.glob("audit*.jsonl"))) == 3
    return folder


def lines_of(home: Path) -> list[bytes]:
    return (home / AUDIT_LOG).read_bytes().splitlines(keepends=True)


def rewritten(home: Path, lines: list[bytes]) -> None:
    (home / AUDIT_LOG).write_bytes(b"".join(lines))


def test_lines_say_what_was_sent_and_form_a_chain(home: Path) -> None:
    found = entries(home)
    assert [e.line for e in found] == list(range(1, N + 1))
    assert [e.payload_bytes for e in found] == [1000 + n for n in range(1, N + 1)]
    assert {(e.kind, e.run, e.contents, e.code) for e in found} == {
        ("train", "demo", ("loss", "weights"), "")
    }
    assert [e.previous for e in found] == ["0" * 64, *(e.hash for e in found[:-1])]
    assert all(e.at.endswith("+00:00") for e in found)
    report = verify(home)
    assert report.problems == () and report.lines == N and report.unfinished_bytes == 0
    assert report.last_hash == found[-1].hash
    assert (home / AUDIT_LOG).stat().st_mode & 0o077 == 0


def with_line(home: Path, index: int, **values: object) -> bytes:
    """A line with other values whose own hash is right: what somebody who knows the format does."""
    entry = from_bytes(lines_of(home)[index])
    assert entry is not None
    return (
        AuditLine(**{**entry.to_json(), "contents": entry.contents, **values}).signed().to_bytes()
    )


def changed(home: Path) -> None:
    lines = lines_of(home)
    lines[2] = lines[2].replace(b'"payload_bytes":1003', b'"payload_bytes":1004')
    rewritten(home, lines)


def replaced(home: Path) -> None:
    rewritten(home, [*lines_of(home)[:2], with_line(home, 2, payload_bytes=1), *lines_of(home)[3:]])


def last_replaced(home: Path) -> None:
    rewritten(home, [*lines_of(home)[:-1], with_line(home, N - 1, payload_bytes=1)])


def removed(home: Path) -> None:
    rewritten(home, lines_of(home)[:2] + lines_of(home)[3:])


def swapped(home: Path) -> None:
    a, b, c, d, *rest = lines_of(home)
    rewritten(home, [a, b, d, c, *rest])


def twice(home: Path) -> None:
    rewritten(home, [*lines_of(home)[:3], *lines_of(home)[2:]])


def first_removed(home: Path) -> None:
    rewritten(home, lines_of(home)[1:])


def end_removed(home: Path) -> None:
    rewritten(home, lines_of(home)[:-2])


def all_removed(home: Path) -> None:
    rewritten(home, [])


def file_removed(home: Path) -> None:
    (home / AUDIT_LOG).unlink()


def head_removed(home: Path) -> None:
    (home / HEAD).unlink()


def head_changed(home: Path) -> None:
    (home / HEAD).write_text("{}")


FINDINGS: dict[Callable[[Path], None], str] = {
    changed: "line 3 was changed",
    replaced: "line 3 was replaced",
    last_replaced: f"the last line, {N}, is not the one that audit.head knows",
    removed: "line 3 is missing before line 4",
    swapped: "line 3 is missing before line 4",
    twice: "line 3 stands where line 4 should",
    first_removed: "line 1 is missing before line 2",
    end_removed: "lines 5 to 6 are missing at the end",
    all_removed: "lines 1 to 6 are missing at the end",
    file_removed: "lines 1 to 6 are missing at the end",
    head_removed: "audit.head is missing",
    head_changed: "audit.head was changed",
}


@pytest.mark.parametrize("change", FINDINGS, ids=lambda change: change.__name__)
def test_verify_says_which_line(change: Callable[[Path], None], home: Path) -> None:
    change(home)
    report = verify(home)
    assert report.problems[0].startswith(FINDINGS[change])
    assert not report.to_json()["intact"]


@pytest.mark.parametrize(
    "change",
    [last_replaced, end_removed, all_removed, file_removed, head_removed, head_changed],
    ids=lambda change: change.__name__,
)
def test_nothing_is_sent_after_the_end_was_touched(
    change: Callable[[Path], None], home: Path
) -> None:
    change(home)
    before = {p.name: p.read_bytes() for p in home.iterdir()}
    with pytest.raises(StateDamaged, match="so nothing is sent"):
        append(home)
    assert {p.name: p.read_bytes() for p in home.iterdir()} == before


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_any_single_change_is_found(kept: Path, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(sorted(p.name for p in kept.glob("audit*.jsonl"))))
    content = (kept / file).read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    what = data.draw(st.sampled_from(["byte", "insert", "delete", "cut", "line", "swap"]))
    lines = content.splitlines(keepends=True)
    which = data.draw(st.integers(0, len(lines) - 1))
    if what == "byte":
        other = data.draw(st.integers(0, 255).filter(lambda b: b != content[at]))
        new = content[:at] + bytes([other]) + content[at + 1 :]
    elif what == "insert":
        new = content[:at] + data.draw(st.binary(min_size=1, max_size=5)) + content[at:]
    elif what == "delete":
        new = content[:at] + content[at + 1 + data.draw(st.integers(0, 600)) :]
    elif what == "cut":
        new = content[:at]
    elif what == "line":
        new = b"".join(lines[:which] + lines[which + 1 :])
    else:
        other_line = data.draw(st.integers(0, len(lines) - 1))
        lines[which], lines[other_line] = lines[other_line], lines[which]
        new = b"".join(lines)
    (kept / file).write_bytes(new)
    try:
        report = verify(kept)
        assert bool(report.problems) == (new != content)
    finally:
        (kept / file).write_bytes(content)


@given(extra=st.binary(min_size=1, max_size=50))
@settings(max_examples=50, deadline=None)
def test_anything_after_the_end_is_noticed(kept: Path, extra: bytes) -> None:
    content = (kept / AUDIT_LOG).read_bytes()
    (kept / AUDIT_LOG).write_bytes(content + extra)
    try:
        report = verify(kept)
        assert report.problems or report.unfinished_bytes == len(extra)
    finally:
        (kept / AUDIT_LOG).write_bytes(content)


def test_a_file_that_is_full_is_put_aside_and_the_chain_goes_on(tmp_path: Path) -> None:
    for number in range(1, 21):
        append(tmp_path, number, most_bytes=1500)
    older = sorted(tmp_path.glob("audit-*.jsonl"))
    assert len(older) > 4
    assert all(path.stat().st_size <= 1500 for path in older)
    assert [e.payload_bytes for e in entries(tmp_path)] == [1000 + n for n in range(1, 21)]
    assert verify(tmp_path).problems == ()
    older[1].unlink()
    assert "missing before line" in verify(tmp_path).problems[0]


def test_a_crash_while_a_file_is_put_aside_loses_nothing(home: Path) -> None:
    (home / AUDIT_LOG).rename(home / f"audit-{N:012d}.jsonl")  # and no new one was begun
    assert verify(home).problems == ()
    assert append(home).line == N + 1
    assert verify(home).problems == ()


def test_a_torn_last_line_is_removed_and_noted(home: Path) -> None:
    whole = (home / AUDIT_LOG).read_bytes()
    (home / AUDIT_LOG).write_bytes(whole + b'{"line":7,"at":"20')
    report = verify(home)
    assert report.problems == () and report.unfinished_bytes == 18  # looking changes nothing
    assert append(home, 7).line == N + 2
    note, line = entries(home)[-2:]
    assert note.kind == "repair" and "18 bytes" in note.note
    assert line.payload_bytes == 1007
    assert (home / AUDIT_LOG).read_bytes().startswith(whole)
    assert verify(home).problems == ()


def test_a_crash_between_line_and_head_is_no_finding(home: Path) -> None:
    head = (home / HEAD).read_bytes()
    append(home, 7)
    (home / HEAD).write_bytes(head)
    assert verify(home).problems == ()
    assert append(home, 8).line == N + 2
    assert verify(home).problems == ()
    (home / HEAD).write_bytes(head)  # two behind: no crash leaves that
    assert "is not the one that audit.head knows" in verify(home).problems[0]


def test_a_file_that_may_not_grow_leaves_the_log_as_it_was(home: Path) -> None:
    before = (home / AUDIT_LOG).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 50, hard))  # in the middle of a line
    try:
        with pytest.raises(StorageFull):
            append(home)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (home / AUDIT_LOG).read_bytes() == before
    assert append(home).line == N + 1


WRITER = """
import sys, pathlib
from edge_client.audit_log import AuditLog
home, name, most = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
acknowledged = open(home / f"{name}.ack", "ab", buffering=0)
n = 0
while n < most:
    n += 1
    line = AuditLog(home, 4000).append(kind="train", run=name, round_number=n, size=n,
                                       sha256="0" * 64, contents=("weights",))
    acknowledged.write(line.to_bytes())
"""


def writer(home: Path, name: str, most: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITER, home, name, str(most)], cwd=ROOT)


def test_two_processes_write_one_chain(tmp_path: Path) -> None:
    writers = [writer(tmp_path, name, 30) for name in ("trainer", "service")]
    assert [each.wait(60) for each in writers] == [0, 0]
    assert verify(tmp_path).problems == ()
    found = entries(tmp_path)
    assert len(found) == 60
    for name in ("trainer", "service"):
        assert [e.round for e in found if e.run == name] == list(range(1, 31))


def test_kill_9_loses_no_line_that_was_acknowledged(tmp_path: Path) -> None:
    chance = random.Random(0)
    for trial in range(8):
        name = f"w{trial}"
        process = writer(tmp_path, name, 10**9)
        acknowledged = tmp_path / f"{name}.ack"
        while not acknowledged.exists() or acknowledged.stat().st_size == 0:
            time.sleep(0.01)
        time.sleep(chance.uniform(0.0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert verify(tmp_path).problems == ()
        known = {e.hash for e in entries(tmp_path)}
        sent = acknowledged.read_bytes().splitlines(keepends=True)
        lines = [from_bytes(row) for row in sent if row.endswith(b"\n")]
        assert lines and all(line is not None and line.hash in known for line in lines)
    append(tmp_path)
    assert verify(tmp_path).problems == ()


# -- the command ------------------------------------------------------------------------------


def test_the_command_lists_and_verifies(home: Path) -> None:
    def run(*arguments: str) -> str:
        result = CliRunner().invoke(client, ["audit", "--home", str(home), *arguments])
        assert result.exit_code == 0, result.output
        return result.output

    assert [row["line"] for row in json.loads(run("--json"))] == list(range(1, N + 1))
    assert "1001 bytes  loss, weights" in run()
    report = json.loads(run("--verify", "--json"))
    assert report["intact"] and report["lines"] == N
    assert report["last_hash"] in run("--verify")


def test_the_command_tells_a_changed_log_by_its_exit_status(home: Path) -> None:
    changed(home)
    result = CliRunner().invoke(client, ["audit", "--home", str(home), "--verify"])
    assert isinstance(result.exception, StateDamaged)
    assert "  - line 3 was changed (audit.jsonl)" in result.output
    listed = CliRunner().invoke(client, ["audit", "--home", str(home)])
    assert listed.exit_code == 0 and "not all lines are as they were written" in listed.stderr


def test_a_wrong_folder_is_told(tmp_path: Path) -> None:
    result = CliRunner().invoke(client, ["audit", "--home", str(tmp_path)])
    assert isinstance(result.exception, DataNotFound)


def test_looking_at_a_copy_without_a_lock_changes_nothing(home: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in home.glob("audit*"):
        shutil.copy(path, copy)
    (copy / "audit.lock").unlink()
    before = sorted(p.name for p in copy.iterdir())
    assert verify(copy).problems == ()
    assert sorted(p.name for p in copy.iterdir()) == before
