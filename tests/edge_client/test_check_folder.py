"""Permissions, damaged files, full disks: what a site's own folder and machine can have."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.data.synthetic import synthetic_lesion_images, write_class_folders
from common.enrolment import EnrolmentFile
from edge_client.audit_log import AuditLog
from edge_client.checks import limits, machine, programs
from edge_client.checks.findings import Check, failed, ok
from edge_client.checks.running import MOST_SECONDS, run_checks
from edge_client.client_folder import ClientFolder
from server.sites import invite
from tests.cli.command import ROOT
from tests.edge_client.checked_home import (
    copy_of,
    install_version,
    make_home,
    outcome,
    outcomes,
    set_up_server,
    set_value,
)
from tests.local_service.running import running


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a site with a version in service and an audit log; its server is away."""
    folder = tmp_path_factory.mktemp("whole")
    server = set_up_server(folder / "srv")
    invitation: EnrolmentFile = invite(server.path, "site-1", folder / "site-1.json")
    home = make_home(folder / "home", invitation)
    install_version(home)
    for n in range(3):
        AuditLog(home).append(
            kind="train", run="r", round_number=n, size=1, sha256="0" * 64, contents=("weights",)
        )
    return home


@pytest.fixture
def home(whole: Path, tmp_path: Path) -> Path:
    return copy_of(whole, tmp_path / "home")


def test_a_whole_site(home: Path) -> None:
    before = {p: p.read_bytes() for p in home.rglob("*") if p.is_file()}
    for group in ("settings", "cases", "disk", "node"):
        for name, found in outcomes(home, group).items():
            standing = "warning" if name == "service" else "ok"  # it does not run
            assert found.standing == standing, (name, found)
    assert {p: p.read_bytes() for p in home.rglob("*") if p.is_file()} == before
    assert "24 to train on, 6 to validate, 6 to test" in outcome(home, "cases").text
    assert outcome(home, "classes").text == "red, green, blue"
    assert "3 lines" in outcome(home, "audit log").text
    assert "version 1" in outcome(home, "state").text and "6 cases" in outcome(home, "state").text
    assert "software backend (akida 2" in outcome(home, "akida").text


@pytest.mark.parametrize(
    ("file", "mode"),
    [("", 0o750), ("keys", 0o755), ("keys/site.key", 0o644), ("keys/runner.secret", 0o640)],
)
def test_permissions(home: Path, file: str, mode: int) -> None:
    (home / file).chmod(mode)
    found = outcome(home, "permissions")
    right = "600" if file.startswith("keys/") else "700"
    assert found.standing == "failed" and f"chmod {right} {home / file}".rstrip("/") in found.text


def test_a_file_of_another_user(home: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files to another user")
    os.chown(home / "state" / "cases.journal", 65534, -1)
    found = outcome(home, "permissions")
    assert found.standing == "failed"
    assert "cases.journal belongs to another user" in found.text and "chown -R root" in found.text
    os.chown(home / "state" / "cases.journal", 0, -1)
    (home / "inbox").mkdir()
    (home / "inbox" / "cases.csv").write_text("")
    os.chown(home / "inbox" / "cases.csv", 65534, -1)
    assert outcome(home, "permissions").standing == "failed"
    set_value(home, "folder", '"inbox"')  # there others put files
    assert outcome(home, "permissions").standing == "ok"


def _replace(text: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(text)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _first_line(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"train"', b'"share"', 1))


@pytest.mark.parametrize(
    ("file", "change", "check", "words"),
    [
        ("client.toml", _replace(b"site = ["), "settings", "TOML"),
        ("client.toml", _replace(b'site = "a"'), "settings", "server: Field required"),
        ("policy.toml", _replace(b"[training]\nhours = 3\n"), "policy", "no key 'hours'"),
        ("policy.toml", Path.unlink, "policy", "put it back"),
        ("keys/site.key", _cut, "keys", "restore it from a backup"),
        ("keys/site.key", Path.unlink, "keys", "site.key is missing"),
        ("keys/runner.secret", _replace(b""), "keys", "runner.secret is empty"),
        ("keys/ca.crt", _replace(b"nothing"), "keys", "ca.crt is no certificate"),
        ("cases.npz", _cut, "cases", "prepare the site again"),
        ("cases.npz", Path.unlink, "cases", "is missing"),
        ("site.json", _replace(b"{}"), "cases", "prepare the site again"),
        ("site.json", _replace(b'{"name": "a", "classes": ["x"], "shares_neurons": true}'),
         "cases", "do not fit each other"),
        ("audit.jsonl", _first_line, "audit log", "line 1 was changed"),
        ("audit.jsonl", Path.unlink, "audit log", "missing at the end"),
        ("state/cases.journal", _flip, "state", "cases.journal is damaged"),
        ("state/versions/1/meta.json", _cut, "state", "not what was written"),
        ("state/versions/1/exemplars.bin", _flip, "state", "differs from its checksum"),
        ("state/current", _replace(b"9\n"), "state", "cannot read"),
        ("state/versions/1/learned-*.fbz", _flip, "state", "not what was written"),
        ("state/versions/1/learned-*.fbz", _flip, "akida", "damaged"),
        ("state/versions/1/learned-*.fbz", Path.unlink, "akida", "fedqana client rollback"),
    ],
)  # fmt: skip
def test_damaged_files(
    home: Path, file: str, change: Callable[[Path], object], check: str, words: str
) -> None:
    (path,) = home.glob(file)
    change(path)
    found = outcome(home, check)
    assert found.standing == "failed" and words in found.text, found


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("server", '"nowhere"', "HOST:PORT"),
        ("seal", '"short"', "no Ed25519 key"),
        ("folder", '"not-there"', "no folder"),
        ("address", '"0.0.0.0:7443"', "mutual TLS"),
        ("port", "0", "[flower] port: Input should be"),
    ],
)
def test_settings_that_cannot_be(home: Path, key: str, value: str, words: str) -> None:
    set_value(home, key, value)
    found = outcome(home, "settings")
    assert found.standing == "failed" and words in found.text


def test_everything_broken_at_once_still_gives_every_line(home: Path) -> None:
    for path in home.rglob("*"):
        if path.is_file():
            path.write_bytes(b"\x00\xff")
    names = [finding.check for finding in run_checks(home)]
    findings = {finding.check: finding for finding in run_checks(home)}
    assert names == list(findings) and len(names) == 23
    assert not [f for f in findings.values() if "the check itself failed" in f.text]
    assert findings["membership"].standing == "not checked"
    assert {f.check for f in findings.values() if f.standing == "ok"} >= {"disk", "temporary"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", place], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def test_a_full_disk(whole: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = copy_of(whole, small_disk / "home")
    assert outcome(home, "disk").standing == "warning"
    with contextlib.suppress(OSError), (small_disk / "filler").open("wb") as filler:
        while True:
            filler.write(b"\0" * 65536)
            filler.flush()
    found = outcome(home, "disk")
    assert found.standing == "failed" and found.text.startswith("0 MB free in")
    assert "at least 3" in found.text and "free some space" in found.text
    for name in ("settings", "keys", "cases", "audit log", "state lock", "state"):
        assert outcome(home, name).standing == "ok"
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    assert outcome(home, "temporary").standing == "failed"


def test_a_disk_that_is_read_only(whole: Path, small_disk: Path) -> None:
    home = copy_of(whole, small_disk / "home")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    found = outcome(home, "disk")
    assert found.standing == "failed" and "mount it writable" in found.text


def test_the_state_folder_is_held(home: Path) -> None:
    hold = "\n".join([
        "import sys, time; from pathlib import Path",
        "from edge_client.state_lock import state_in_use",
        "with state_in_use(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)",
    ])  # fmt: skip
    command = [sys.executable, "-c", hold, str(home / "state")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == "held\n"
            found = outcomes(home, "state lock")
            assert found["state lock"].standing == "warning"
            assert found["state"].standing == "not checked"
            assert outcome(home, "akida").standing == "not checked"
        finally:
            holder.kill()
    assert outcome(home, "state lock").text == "free"


def test_a_port_that_another_program_uses(home: Path) -> None:
    with socket.create_server(("127.0.0.1", ClientFolder(home).config().flower.port)):
        found = outcome(home, "node")
    assert found.standing == "failed" and f"process {os.getpid()}" in found.text
    assert "flower.port" in found.text
    assert outcome(home, "node").standing == "ok"


def test_the_clients_own_node_uses_its_port(home: Path) -> None:
    port = ClientFolder(home).config().flower.port
    listen = (
        f"import socket, time; s = socket.create_server(('127.0.0.1', {port}))\n"
        "print(1, flush=True); time.sleep(60)"
    )
    key = str(ClientFolder(home).key)
    command = [sys.executable, "-c", listen, "flower-supernode", key]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as node:
        try:
            assert node.stdout is not None and node.stdout.readline()
            assert "node runs on port" in outcome(home, "node").text
            # Another site's folder whose name begins alike is not this one.
            other = copy_of(home, home.with_name("home-2"))
            assert outcome(other, "node").standing == "failed"
        finally:
            node.kill()


def test_the_local_service(home: Path) -> None:
    with running(home):
        assert outcome(home, "service").text == "it answers with version 1"
        (home / "state" / "versions" / "1" / "state.json").write_text("{}")
        time.sleep(0.1)
        found = outcome(home, "service")
        assert found.standing == "failed" and "an older state" in found.text
    assert outcome(home, "service").standing == "warning"


def test_something_else_where_the_service_should_be(home: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(home / "service.sock"))
        other.listen()
        assert outcome(home, "service").standing == "failed"


def test_a_folder_of_images(home: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    write_class_folders(synthetic_lesion_images(12, 0), images)
    found = outcomes(home, "images", images)["images"]  # of classes that the site does not have
    assert found.standing == "failed" and "no labelled images" in found.text
    for folder, code in zip(sorted(images.iterdir()), ("red", "green", "blue"), strict=False):
        folder.rename(images / code)
    for folder in images.iterdir():
        if folder.name not in ("red", "green", "blue"):
            shutil.rmtree(folder)
    found = outcomes(home, "images", images)["images"]
    assert found.standing == "ok" and " images of " in found.text, found
    (next((images / "red").iterdir())).write_bytes(b"no picture")
    found = outcomes(home, "images", images)["images"]
    assert found.standing == "failed" and "1 problem, first: " in found.text
    assert f"fedqana data check {images}" in found.text


def test_more_images_than_there_is_time_for(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_client.checks import site

    write_class_folders(synthetic_lesion_images(12, 0), tmp_path / "images")
    monkeypatch.setattr(site, "_DATA_SECONDS", 0.05)
    found = outcomes(home, "images", tmp_path / "images")["images"]
    assert found.standing == "warning" and "fedqana data check" in found.text


def test_memory_and_processors(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_NEEDED_MEMORY", 10**15)
    assert outcome(home, "memory").standing == "failed"
    (home / "state" / "current").write_bytes(b"\xff")
    assert outcome(home, "akida").standing == outcome(home, "state").standing == "failed"
    policy = home / "policy.toml"
    policy.write_text(policy.read_text().replace("max_threads = 0", "max_threads = 1000"))
    found = outcome(home, "processors")
    assert found.standing == "warning" and "max_threads" in found.text


def _end_at_once() -> None:
    os._exit(11)


def test_a_program_that_ends_akidas_process(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(limits.ProcessDied, match="11"):
        limits.in_own_process(60.0, _end_at_once)
    with pytest.raises(TimeoutError):
        limits.in_own_process(0.1, time.sleep, 60)

    def died(*_: object) -> None:
        raise limits.ProcessDied("exit status -11")

    monkeypatch.setattr(programs, "in_own_process", died)
    found = outcome(home, "akida")
    assert found.standing == "failed" and "exit status -11" in found.text


def test_a_check_that_hangs_or_breaks_holds_nothing_up(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_client.checks import running as module

    def breaks() -> None:
        raise KeyError("name of a patient")

    hanging = [
        Check("hangs", lambda: time.sleep(60), 0.2),  # type: ignore[arg-type,return-value]
        Check("slow", lambda: time.sleep(60), 0.2, failed("said so")),  # type: ignore[arg-type,return-value]
        Check("breaks", breaks),  # type: ignore[arg-type]
        Check("late", lambda: time.sleep(1) or ok(""), 5.0),  # type: ignore[func-returns-value]
        Check("never", lambda: ok("")),
    ]
    others = [Check("other", lambda: ok("fine"))]
    monkeypatch.setattr(module, "check_groups", lambda home, data: [hanging, others])
    started = time.monotonic()
    found = {finding.check: finding for finding in run_checks(home, most_seconds=1.0)}
    assert time.monotonic() - started < 3
    assert "no result after" in found["hangs"].text and found["slow"].text == "said so"
    assert "KeyError" in found["breaks"].text and "patient" not in found["breaks"].text
    assert found["late"].standing == "failed" and found["never"].standing == "not checked"
    assert found["other"].standing == "ok"
    assert MOST_SECONDS < 15


def test_a_class_that_is_always_referred_and_is_none_of_the_sites(home: Path) -> None:
    policy = home / "policy.toml"
    text = policy.read_text()
    policy.write_text(text.replace('classes = ["mel"]', 'classes = ["mle"]'))
    assert policy.read_text() != text
    found = outcomes(home, "settings")["policy"]
    assert found.standing == "warning" and "[referral] classes has mle" in found.text
