"""What a watched folder learns, leaves and refuses, and what it says about it."""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import (
    DataNotFound,
    DataUnfit,
    ServiceUnavailable,
    StateInUse,
    UnknownLabel,
)
from edge_client.watched_folder import LearnOutcome, ScanReport, WatchSettings, scan_once, watch
from tests.data.dicom_files import MARKERS, dicom, picture
from tests.edge_client.watching import (
    NOW,
    Learner,
    files,
    no_syncing,
    png,
    put,
    put_batch,
    scan,
    sha,
    table,
)
from tests.local_service.running import CASES, make_home, running
from tests.local_service.running import png as png_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def learner(tmp_path: Path) -> Learner:
    return Learner(tmp_path / "state" / "cases.journal")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "watched"
    path.mkdir()
    return path


def test_rows_become_cases(folder: Path, learner: Learner) -> None:
    put_batch(folder, "monday.csv", 3)
    assert scan(folder, learner) == ScanReport(learned=3, files_done=1)
    assert learner.calls == [
        (sha(png(i)), code, f"case-{i}", f"lesion-{i}")
        for i, code in enumerate(("nv", "mel", "nv"))
    ]
    assert files(folder) == {
        *(f"{i}.png" for i in range(3)),
        "done/monday.csv",
        "done/monday.results.csv",
    }
    results = table(folder / "done" / "monday.results.csv")
    assert [(r["line"], r["case"], r["result"]) for r in results] == [
        (str(i + 2), f"case-{i}", "learned") for i in range(3)
    ]
    assert scan(folder, learner) == ScanReport() and len(learner.calls) == 3


@pytest.mark.parametrize(
    "text",
    [
        "image,diagnosis\na.png,nv\n",
        "PATH;Label;ignored\r\na.png;NV;x\r\n",
        "\ufeff file \tclass\n a.png \t nv \n\n",
        'filename,dx\n"a.png","nv"\n',
        "image,dx\nsub\\..\\a.png,nv\n",
    ],
)
def test_headers_are_taken_as_in_training(folder: Path, learner: Learner, text: str) -> None:
    put(folder, "a.png", png(1))
    put(folder, "list.CSV", text)
    assert scan(folder, learner) == ScanReport(learned=1, files_done=1)
    digest = sha(png(1))
    assert learner.calls == [(digest, "nv", digest, digest)]


def test_a_patient_takes_the_place_of_the_lesion(folder: Path, learner: Learner) -> None:
    put(folder, "a.png", png(1))
    put(folder, "b.png", png(2))
    rows = "image,dx,case,lesion,patient_id\na.png,nv,A,L1,P1\nb.png,mel,,L2,\n"
    put(folder, "list.csv", rows)
    scan(folder, learner)
    assert [(c, lesion) for _, _, c, lesion in learner.calls] == [("A", "P1"), (sha(png(2)), "L2")]


def test_what_is_being_written_is_left(folder: Path, learner: Learner) -> None:
    patient = WatchSettings(settle=30.0)
    put(folder, "a.png", png(1))
    put(folder, "list.csv", "image,dx\na.png,nv\n", age=1.0)
    assert scan(folder, learner, patient) == ScanReport(files_waiting=1)
    put(folder, "list.csv", "image,dx\na.png,nv")
    assert scan(folder, learner, patient) == ScanReport(files_waiting=1)
    put(folder, "list.csv", "")
    assert scan(folder, learner, patient) == ScanReport(files_waiting=1)
    put(folder, "list.csv", "image,dx\na.png,nv\n")
    put(folder, "a.png", png(1), age=1.0)
    assert scan(folder, learner, patient) == ScanReport(waiting=1, files_waiting=1)
    put(folder, "a.png", b"")
    assert scan(folder, learner, patient) == ScanReport(waiting=1, files_waiting=1)
    assert not learner.calls
    put(folder, "a.png", png(1), age=-3600.0)  # a share whose clock is an hour ahead
    assert scan(folder, learner, patient) == ScanReport(learned=1, files_done=1)


def test_an_image_may_come_later(folder: Path, learner: Learner) -> None:
    put(folder, "a.png", png(1))
    put(folder, "list.csv", "image,dx\na.png,nv\nsub/b.png,mel\n")
    assert scan(folder, learner) == ScanReport(learned=1, waiting=1, files_waiting=1)
    assert scan(folder, learner) == ScanReport(waiting=1, files_waiting=1)
    put(folder, "sub/b.png", png(2))
    assert scan(folder, learner) == ScanReport(learned=1, files_done=1)
    assert len(learner.calls) == 2
    results = table(folder / "done" / "list.results.csv")
    assert [r["result"] for r in results] == ["learned", "learned"]


def test_patience_ends_and_outlasts_a_restart(
    folder: Path, learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder, "list.csv", "image,dx,note\nmissing.png,nv,x\n")
    put(folder, "open.csv", "image,dx\nmissing.png,nv")
    patient = WatchSettings(settle=0.0, patience=600.0)
    assert scan(folder, learner, patient).waiting == 1
    now = time.time()
    monkeypatch.setattr("edge_client.watch_scan.time.time", lambda: now + 590)
    assert scan(folder, learner, patient) == ScanReport(waiting=1, files_waiting=2)
    monkeypatch.setattr("edge_client.watch_scan.time.time", lambda: now + 610)
    assert scan(folder, learner, patient) == ScanReport(refused=1, files_done=1, files_failed=1)
    (failed,) = table(folder / "failed" / "list.csv")
    assert failed["image"] == "missing.png" and failed["dx"] == "nv" and failed["note"] == "x"
    assert failed["line"] == "2" and "not there" in failed["reason"]
    reason = (folder / "failed" / "open.csv.reason.txt").read_text()
    assert "newline" in reason and (folder / "failed" / "open.csv").exists()


def test_rows_that_cannot_succeed(folder: Path, learner: Learner, tmp_path: Path) -> None:
    put(tmp_path, "secret.png", png(9))
    put(folder, "a.png", png(1))
    put(folder, "b.png", b"no image")
    (folder / "sub").mkdir()
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "out").symlink_to(tmp_path)
    (folder / "inner.png").symlink_to(folder / "a.png")
    os.mkfifo(folder / "pipe.png")
    rows = {
        "../secret.png": "out of the watched folder",
        "sub/../../secret.png": "out of the watched folder",
        str(tmp_path / "secret.png"): "out of the watched folder",
        "link.png": "by a link",
        "out/secret.png": "by a link",
        "sub": "no file",
        ".": "out of the watched folder",
        "pipe.png": "no file",
        "b.png": "not a readable JPEG, PNG or DICOM file",
        "": "no image is named",
        "a\0.png": "out of the watched folder",
    }
    lines = [f"{name},nv" for name in rows]
    put(folder, "list.csv", "\n".join(["image,dx", *lines, "inner.png,mel"]) + "\n")
    report = scan(folder, learner)
    assert report == ScanReport(learned=1, refused=len(rows), files_done=1)
    assert sha(png(9)) not in {call[0] for call in learner.calls}
    failed = {r["image"]: r["reason"] for r in table(folder / "failed" / "list.csv")}
    assert failed.keys() == rows.keys()
    for name, words in rows.items():
        assert words in failed[name], name
    # What was refused can be corrected there and given again.
    corrected = (folder / "failed" / "list.csv").read_text().replace("../secret.png", "a.png")
    put(folder, "again.csv", corrected.splitlines()[0] + "\n" + corrected.splitlines()[1] + "\n")
    assert scan(folder, learner) == ScanReport(duplicates=1, files_done=1)


def test_an_unknown_diagnosis_names_the_allowed_ones(folder: Path, learner: Learner) -> None:
    put(folder, "a.png", png(1))
    put(folder, "list.csv", "image,dx\na.png,melanoma\n")
    scan(folder, learner, WatchSettings(settle=0.0, codes=("nv", "mel")))
    assert "nv, mel" in table(folder / "failed" / "list.csv")[0]["reason"]
    learner.fails = UnknownLabel("'melanoma' is no class of this\nsite (red, blue)")
    put(folder, "next.csv", "image,dx\na.png,melanoma\n")
    scan(folder, learner)
    reason = "'melanoma' is no class of this site (red, blue)"
    assert table(folder / "failed" / "next.csv")[0]["reason"] == reason


def test_rows_that_contradict_each_other(folder: Path, learner: Learner) -> None:
    for name in "abc":
        put(folder, f"{name}.png", png(ord(name)))
    rows = [
        "a.png,nv,1",
        "./a.png,mel,1",
        "b.png,nv,2",
        "c.png,mel,2",
        "c.png,mel,3",
        "c.png,mel,3",
    ]
    put(folder, "list.csv", "\n".join(["image,dx,case", *rows]) + "\n")
    assert scan(folder, learner) == ScanReport(learned=1, refused=4, files_done=1)
    assert learner.learned == {"3": "mel"}
    results = table(folder / "done" / "list.results.csv")
    assert [r["result"] for r in results] == [*["refused"] * 4, "learned", "duplicate"]
    assert "lines 2, 3 give one case" in results[0]["reason"]
    assert "line 6 says the same" in results[5]["reason"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"image,diagnosis\na.png,nv,x\n", "3 values under 2 columns"),
        (b"bild,diagnose\na.png,nv\n", "needs an image column"),
        (b'image,dx\na.png,"nv\n', "is not CSV"),
        ("image,dx\nä.png,nv\n".encode("cp1252"), "not UTF-8"),
        (b"\n", "needs an image column"),
    ],
)
def test_files_of_which_nothing_can_be_read(
    folder: Path, learner: Learner, content: bytes, words: str
) -> None:
    put(folder, "list.csv", content)
    assert scan(folder, learner) == ScanReport(files_failed=1)
    assert files(folder) == {"failed/list.csv", "failed/list.csv.reason.txt"}
    assert words in (folder / "failed" / "list.csv.reason.txt").read_text()
    assert (folder / "failed" / "list.csv").read_bytes() == content


def test_a_csv_file_that_is_a_link(folder: Path, learner: Learner, tmp_path: Path) -> None:
    outside = put(tmp_path, "outside.csv", "image,dx\na.png,nv\n")
    (folder / "link.csv").symlink_to(outside)
    put(folder, "a.png", png(1))
    time.sleep(0.01)
    assert scan(folder, learner) == ScanReport(files_failed=1)
    assert outside.exists() and not learner.calls


def test_a_file_without_rows(folder: Path, learner: Learner) -> None:
    put(folder, "list.csv", "image,dx\n")
    assert scan(folder, learner) == ScanReport(files_done=1)


def test_names_are_never_overwritten(folder: Path, learner: Learner) -> None:
    put(folder, "a.png", png(1))
    texts = [f"image,dx,n\na.png,{code},{i}\n" for i, code in enumerate(("nv", "no code", "nv"))]
    settings = WatchSettings(settle=0.0, codes=("nv",))
    for text in (*texts, "nothing\n", texts[0]):
        put(folder, "list.csv", text)
        scan(folder, learner, settings)
    assert {f for f in files(folder) if f.endswith("csv")} == {
        *(f"done/list{n}.csv" for n in ("", "-2", "-3", "-5")),
        *(f"done/list{n}.results.csv" for n in ("", "-2", "-3", "-5")),
        *("failed/list-2.csv", "failed/list-4.csv"),
    }
    assert (folder / "done" / "list-5.csv").read_text() == texts[0]
    put(folder, "ü" * 110 + ".csv", texts[0])
    assert scan(folder, learner) == ScanReport(duplicates=1, files_done=1)


def test_lines_that_are_added_while_others_wait(folder: Path, learner: Learner) -> None:
    put(folder, "a.png", png(1))
    text = "image,dx\na.png,nv\nb.png,mel\n"
    put(folder, "list.csv", text)
    scan(folder, learner)
    put(folder, "list.csv", f"{text}c.png,nv\n")
    for name in "bc":
        put(folder, f"{name}.png", png(ord(name)))
    assert scan(folder, learner) == ScanReport(learned=2, files_done=1)
    assert [r["result"] for r in table(folder / "done" / "list.results.csv")] == ["learned"] * 3


def test_a_line_that_is_added_at_the_last_moment_is_not_lost(
    folder: Path, learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        put(folder, f"{name}.png", png(ord(name)))
    text = "image,dx\na.png,nv\n"
    path = put(folder, "list.csv", text)
    rename = Path.rename

    def late(self: Path, target: Path) -> Path:
        if self == path and len(learner.calls) == 1:
            path.write_text(f"{text}b.png,mel\n")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    assert scan(folder, learner) == ScanReport(learned=1, files_waiting=1)
    assert scan(folder, learner) == ScanReport(learned=1, files_done=1)
    assert len(learner.calls) == 2
    assert files(folder) == {"a.png", "b.png", "done/list.csv", "done/list.results.csv"}


def test_of_dicom_only_the_pixels_are_handed_on(folder: Path, learner: Learner) -> None:
    content = dicom(picture())
    put(folder, "a.dcm", content)
    put(folder, "b.dcm", dicom(picture(), BurnedInAnnotation="YES"))
    put(folder, "list.csv", "image,dx\na.dcm,nv\nb.dcm,mel\n")
    sent: list[bytes] = []

    def learn(image: bytes, code: str, case_id: str, lesion_id: str) -> LearnOutcome:
        sent.append(image)
        return learner(image, code, case_id, lesion_id)

    assert scan_once(folder, learn, NOW) == ScanReport(learned=1, refused=1, files_done=1)
    assert sent[0].startswith(b"\x89PNG") and learner.calls[0][2] == sha(content)
    assert not any(marker.encode() in sent[0] for marker in MARKERS)
    for path in (folder / "done").iterdir():
        assert not any(marker in path.read_text() for marker in MARKERS)


# Passing reasons


def test_reasons_that_pass(folder: Path, learner: Learner) -> None:
    put_batch(folder, "list.csv", 2)
    learner.outcome = LearnOutcome("later", "busy")
    for _ in range(3):
        assert scan(folder, learner) == ScanReport(waiting=2, files_waiting=1)
    learner.outcome, learner.fails = None, DataUnfit("held back")
    assert scan(folder, learner).refused == 2


def test_a_service_that_is_down_is_not_asked_for_every_row(folder: Path, learner: Learner) -> None:
    put_batch(folder, "a.csv", 20)
    put_batch(folder, "b.csv", 20, first=20)
    learner.fails = ServiceUnavailable("no service")
    report = scan(folder, learner)
    assert len(learner.calls) == 3
    assert report == ScanReport(
        waiting=40, files_waiting=2, obstacles=("ServiceUnavailable",), halted=True
    )
    learner.fails = None
    assert scan(folder, learner) == ScanReport(learned=40, files_done=2)
    assert len(learner.learned) == 40


def test_rows_with_which_the_service_fails_keep_others_waiting_for_one_look(
    folder: Path, learner: Learner
) -> None:
    put_batch(folder, "a.csv", 3)
    put_batch(folder, "b.csv", 4, first=3)
    unanswered: set[str] = set()

    def learn(image: bytes, code: str, case_id: str, lesion_id: str) -> LearnOutcome:
        if case_id in {"case-0", "case-1", "case-2"}:
            raise ServiceUnavailable("the local service failed (INTERNAL)")
        return learner(image, code, case_id, lesion_id)

    assert scan_once(folder, learn, NOW, unanswered=unanswered).halted
    report = scan_once(folder, learn, NOW, unanswered=unanswered)
    assert (report.learned, report.waiting, report.halted) == (4, 3, False)


def test_one_row_with_which_the_service_fails_keeps_no_other(
    folder: Path, learner: Learner
) -> None:
    put_batch(folder, "list.csv", 5)

    def learn(image: bytes, code: str, case_id: str, lesion_id: str) -> LearnOutcome:
        if case_id == "case-1":
            raise ValueError("Zoe Q")
        return learner(image, code, case_id, lesion_id)

    report = scan_once(folder, learn, NOW)
    assert (report.learned, report.waiting, report.halted) == (4, 1, False)
    assert report.obstacles[0].startswith("ValueError at test_watched_folder.py:")
    assert len(scan_once(folder, learn, NOW).obstacles) == 1 and len(learner.calls) == 4


def test_stopping_ends_after_the_row_under_way(folder: Path, learner: Learner) -> None:
    put_batch(folder, "list.csv", 5)
    stop = threading.Event()

    def learn(image: bytes, code: str, case_id: str, lesion_id: str) -> LearnOutcome:
        if case_id == "case-1":
            stop.set()
        return learner(image, code, case_id, lesion_id)

    report = scan_once(folder, learn, NOW, stop)
    assert report == ScanReport(learned=2, waiting=3, files_waiting=1)
    assert scan(folder, learner).learned == 3


def test_one_process_at_a_time(folder: Path, learner: Learner) -> None:
    put_batch(folder, "list.csv", 1)

    def learn(image: bytes, code: str, case_id: str, lesion_id: str) -> LearnOutcome:
        with pytest.raises(StateInUse, match="another process watches"):
            scan(folder, learner)
        return learner(image, code, case_id, lesion_id)

    assert scan_once(folder, learn, NOW).learned == 1


def test_a_folder_that_is_not_there(tmp_path: Path, learner: Learner) -> None:
    with pytest.raises(DataNotFound, match="make it or name another"):
        scan(tmp_path / "nowhere", learner)
    assert not (tmp_path / "nowhere").exists()


def test_results_can_be_read_by_whoever_may_read_the_list(folder: Path, learner: Learner) -> None:
    put_batch(folder, "list.csv", 1)
    (folder / "list.csv").chmod(0o664)
    folder.chmod(0o775)
    before = os.umask(0o077)
    try:
        scan(folder, learner)
    finally:
        os.umask(before)
    assert (folder / "done" / "list.results.csv").stat().st_mode & 0o777 == 0o664
    assert (folder / "done").stat().st_mode & 0o777 == 0o775


# Watching


def seconds_until(condition: Any, limit: float = 10.0) -> float:
    start = time.monotonic()
    while not condition():
        assert time.monotonic() < start + limit
        time.sleep(0.01)
    return time.monotonic() - start


def test_watching_survives_what_happens(
    folder: Path, learner: Learner, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    stop = threading.Event()
    thread = threading.Thread(target=watch, args=(folder, learner, 0.02, stop, NOW))
    learner.fails = RuntimeError("Zoe Qmarker")
    put_batch(folder, "qmarker.csv", 4)
    thread.start()
    try:
        seconds_until(lambda: len(learner.calls) >= 3)
        learner.fails = None
        seconds_until(lambda: (folder / "done" / "qmarker.csv").exists())
        shutil.move(folder, folder.with_name("away"))
        seconds_until(lambda: "DataNotFound" in caplog.text)
        shutil.move(folder.with_name("away"), folder)
        (folder / "done").rename(folder / "kept")
        (folder / "done").write_text("in the way")
        put_batch(folder, "qmarker.csv", 2, first=4)
        seconds_until(lambda: "StorageFull" in caplog.text)
        (folder / "done").unlink()
        seconds_until(lambda: (folder / "done" / "qmarker.csv").exists())
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive() and len(learner.learned) == 6
    assert "4 learned" in caplog.text and "RuntimeError at" in caplog.text
    for secret in ("Qmarker", "qmarker", "case-", "lesion-", ".png", ".csv", str(folder)):
        assert secret not in caplog.text


def test_pauses_grow_and_a_stop_ends_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout or 0)
            if len(pauses) == 8:
                (folder / "list.csv").unlink()
            if len(pauses) == 10:
                self.set()
            return self.is_set()

    put_batch(folder, "list.csv", 3)

    def learn(*_: object) -> LearnOutcome:
        raise ServiceUnavailable("down")

    watch(folder, learn, 10.0, Stop(), NOW)
    assert pauses == [20, 40, 80, 160, 300, 300, 300, 300, 10, 10]


# Whatever a CSV file holds


CELL = st.one_of(
    st.sampled_from(["a.png", "nv", "mel", "", "..", "/", "image", "dx", "\0", '"', "'", "=1+1"]),
    st.text(max_size=8),
)
LINES = st.lists(st.lists(CELL, min_size=1, max_size=4).map(",".join), max_size=6)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        LINES.map(lambda lines: "\n".join(["image,dx,case", *lines, ""]).encode()),
        LINES.map(lambda lines: ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")),
        st.binary(max_size=60),
    )
)
def test_odd_files(content: bytes) -> None:
    """Every file ends in done or failed, or is left because it has no newline at its end."""
    with tempfile.TemporaryDirectory() as name, no_syncing():
        folder = Path(name) / "watched"
        learner = Learner(Path(name) / "cases.journal")
        put(folder, "a.png", png(1))
        put(folder, "list.csv", content)
        impatient = WatchSettings(settle=0.0, patience=0.0, codes=("nv", "mel"))
        report = scan(folder, learner, impatient)
        assert report.waiting == 0 and not report.obstacles
        ended = (report.files_done, report.files_failed, report.files_waiting)
        assert ended == ((0, 0, 1) if not content else ended) and sum(ended) == 1
        if report.files_done:
            results = table(folder / "done" / "list.results.csv")
            counts = [r["result"] for r in results]
            assert counts.count("learned") == len(learner.learned) == report.learned
            assert all(r["reason"] for r in results if r["result"] == "refused")
            assert (folder / "done" / "list.csv").read_bytes() == content
        elif report.files_failed:
            assert (folder / "failed" / "list.csv").read_bytes() == content
        assert scan(folder, learner, impatient).learned == 0
        assert not list((folder / ".fedqana-watch").glob("*.jsonl"))


# The process that the edge client starts


def _watcher(home: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "edge_client.watched_folder", str(home)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )


def _configure(home: Path, folder: str) -> None:
    home.mkdir(exist_ok=True)
    lines = ['site = "s"', 'server = "x:1"', 'seal = ""', "[watch]", f'folder = "{folder}"']
    (home / "policy.toml").write_text("")  # which a site that has joined must have
    (home / "client.toml").write_text("\n".join([*lines, "interval = 0.2", ""]))


def test_the_real_service_learns_what_is_put_there(tmp_path: Path) -> None:
    home, folder = tmp_path / "home", tmp_path / "home" / "in"
    make_home(home)
    _configure(home, "in")
    folder.mkdir()
    rows = ["image,dx,case,lesion"]
    for case in CASES[:6]:
        put(folder, f"{case.case_id}.png", png_of(case.image))
        rows.append(f"{case.case_id}.png,{case.code},{case.case_id},{case.lesion_id}")
    put(folder, f"{CASES[6].case_id}.png", png_of(CASES[6].image))
    rows.append(f"{CASES[6].case_id}.png,purple,,")
    put(folder, "list.csv", "\n".join(rows) + "\n")
    watcher = _watcher(home)
    try:
        time.sleep(3.0)  # without a service it waits
        assert (folder / "list.csv").exists() and watcher.poll() is None
        with running(home) as service:
            seconds_until(lambda: (folder / "done" / "list.csv").exists(), 60)
            with service.client() as client:
                known = {case.case_id: case.diagnosis for case in client.list_cases().cases}
            assert known == {case.case_id: case.code for case in CASES[:6]}
            put(folder, "again.csv", "\n".join(rows[:2]) + "\n")
            seconds_until(lambda: (folder / "done" / "again.csv").exists(), 60)
    finally:
        watcher.terminate()
        log = watcher.communicate(timeout=30)[1]
    assert watcher.returncode == 0
    results = table(folder / "done" / "list.results.csv")
    assert [r["result"] for r in results] == [*["learned"] * 6, "refused"]
    assert "red, green, blue" in results[6]["reason"]
    (again,) = table(folder / "done" / "again.results.csv")
    assert again["result"] == "duplicate" and f"counts as {CASES[0].code}" in again["reason"]
    assert "ServiceUnavailable" in log and "6 learned" in log
    assert not any(case.case_id in log for case in CASES[:7])


def test_the_process_says_what_is_wrong_with_its_settings(tmp_path: Path) -> None:
    _configure(tmp_path / "home", "")
    watcher = _watcher(tmp_path / "home")
    log = watcher.communicate(timeout=60)[1]
    assert watcher.returncode == 60 and "set watch.folder" in log
