"""Bad input that the command line can meet: its exit status and its one line."""

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.bundle import make_bundle, save_bundle
from common.qana.config import QanaConfig
from server.history.engine import default_url
from server.history.store import open_history
from simulation.cli import main
from tests.cli.command import ROOT, fedqana
from tests.history.examples import example_run

NO_SERVER = "postgresql+psycopg://someone:secret@127.0.0.1:1/x"
TINY = ("--data", "synthetic:50", "--network", "small")


def refused(
    result: subprocess.CompletedProcess[str], exit_status: int, *said: str, lines: int = 1
) -> None:
    """The command failed with this status and one line that says each of ``said``."""
    assert result.returncode == exit_status, result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    assert len(result.stderr.splitlines()) == lines, result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("fedqana: ") and len(last) > 40
    for part in said:
        assert part in last


def class_folders(root: Path, counts: dict[str, int]) -> Path:
    """A folder of images of noise per class."""
    rng = np.random.default_rng(0)
    for code, count in counts.items():
        (root / code).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (64, 64, 3), np.uint8)
            Image.fromarray(pixels).save(root / code / f"{number}.jpg")
    return root


@pytest.fixture
def two_classes(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "images", {"nv": 4, "mel": 4})


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An output folder with a history, without runs."""
    folder = tmp_path / "out"
    folder.mkdir()
    open_history(default_url(folder)).close()
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    weights = {"stem/kernel": np.ones((3, 3, 3, 8), np.float32)}
    made = make_bundle(
        b"program",
        weights,
        weights,
        run="r",
        version=1,
        parent=0,
        phase="float",
        classes=("nv", "mel"),
        config=QanaConfig(),
        seed=1,
    )
    save_bundle(made, folder)
    return folder


@pytest.fixture(scope="module")
def full_disk() -> tuple[str, ...]:
    """What starts a command on a file system of 64 KiB: the working directory becomes it."""
    small = 'mount -t tmpfs -o size=64k none . && cd $PWD && exec "$@"'
    wrap = ("unshare", "--mount", "sh", "-c", small, "sh")
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed: no small disk can be mounted")
    tried = subprocess.run([*wrap, "true"], cwd="/mnt", capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no right to mount a small disk: {tried.stderr.strip()}")
    return wrap


# -- data -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("data", "check"), ("simulate", "--data")])
def test_a_wrong_folder(command: tuple[str, ...], tmp_path: Path) -> None:
    result = fedqana(*command, "nowhere", folder=tmp_path)
    refused(result, 10, "no folder ", "nowhere; accepted is", "one folder of images per class")


@pytest.mark.parametrize("command", [("data", "check"), ("simulate", "--data")])
def test_class_folders_without_images(command: tuple[str, ...], tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "images", {"nv": 0, "mel": 0})
    refused(fedqana(*command, folder, folder=tmp_path), 10, str(folder), "no labelled images")


def test_all_classes_but_one_empty(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "images", {"nv": 4, "mel": 0})
    result = fedqana("data", "check", folder)
    refused(result, 13, str(folder), "correct them")
    assert "class mel has no images" in result.stdout


def test_a_corrupt_jpeg(two_classes: Path, tmp_path: Path) -> None:
    image = two_classes / "nv" / "2.jpg"
    image.write_bytes(image.read_bytes()[:200])
    checked = fedqana("data", "check", two_classes)
    refused(checked, 13, str(two_classes))
    assert "nv/2.jpg" in checked.stdout
    used = fedqana("simulate", "--data", two_classes, "--sites", "iid:1", folder=tmp_path)
    refused(used, 11, "nv/2.jpg", "replace or remove it")


def test_a_table_with_unknown_labels(two_classes: Path, tmp_path: Path) -> None:
    (two_classes / "cases.csv").write_text("image,dx\nnv/0.jpg,nv\nnv/1.jpg,rash\n")
    checked = fedqana("data", "check", two_classes)
    refused(checked, 13, str(two_classes))
    assert "rash" in checked.stdout
    used = fedqana("simulate", "--data", two_classes, folder=tmp_path)
    refused(used, 12, "cases.csv line 3", "'rash'", "correct it")


def test_a_refused_start_leaves_no_run_behind(tmp_path: Path) -> None:
    refused(fedqana("simulate", "--data", "nowhere", "--run", "first", folder=tmp_path), 10)
    assert not list(tmp_path.glob("fedqana-out/*/data.json"))


# -- models and runs --------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["program.fbz", "quantized.npz", "float.npz", "card.json"])
def test_a_bundle_with_one_byte_changed(file: str, bundle: Path) -> None:
    content = bytearray((bundle / file).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / file).write_bytes(content)
    result = fedqana("model", "describe", bundle)
    refused(result, 21, str(bundle), file, "fetch the bundle again")


def test_no_such_bundle(tmp_path: Path) -> None:
    refused(fedqana("model", "describe", tmp_path), 20, str(tmp_path))


def test_a_state_folder_without_a_program(tmp_path: Path) -> None:
    refused(fedqana("client", "status", "--state", tmp_path), 20, str(tmp_path))


@pytest.mark.parametrize(
    "command",
    [("runs", "show"), ("runs", "report"), ("simulate", "--resume")],
)
def test_an_unknown_run(command: tuple[str, ...], out: Path) -> None:
    refused(fedqana(*command, "nosuch", "--out", out), 32, "nosuch", "there")


def test_a_resumed_run_keeps_its_settings(out: Path) -> None:
    result = fedqana("simulate", "--resume", "nosuch", "--rounds", "3", "--out", out)
    refused(result, 33, "rounds", "start a new run")


# -- machine ----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("runs", "list"), ("simulate", *TINY)])
def test_an_unreachable_database(command: tuple[str, ...], tmp_path: Path) -> None:
    result = fedqana(*command, "--database", NO_SERVER, folder=tmp_path)
    refused(result, 42, "127.0.0.1", "check --database")
    assert "secret" not in result.stderr
    assert not list(tmp_path.glob("fedqana-out/*/data.json"))


def test_no_history_yet(tmp_path: Path) -> None:
    result = fedqana("runs", "list", folder=tmp_path)
    refused(result, 42, "fedqana-out/history.db", "fedqana simulate")


@pytest.mark.parametrize("command", [("database", "upgrade"), ("simulate", *TINY)])
def test_a_database_in_a_folder_that_cannot_be_written(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    # A file in the folder's place is refused to root too, whom no permission stops.
    (tmp_path / "file").touch()
    url = f"sqlite:///{tmp_path}/file/below/history.db"
    result = fedqana(*command, "--database", url, folder=tmp_path)
    refused(result, 40, str(tmp_path / "file"), "another folder")


def test_a_damaged_database(out: Path) -> None:
    (out / "history.db").write_bytes(b"no database at all" * 100)
    refused(fedqana("runs", "list", "--out", out), 41, "damaged", "restore a copy")


@pytest.mark.parametrize(
    "command",
    [("data", "make", "made", "--lesions", "30"), ("simulate", *TINY), ("database", "upgrade")],
)
def test_a_full_disk(command: tuple[str, ...], full_disk: tuple[str, ...], tmp_path: Path) -> None:
    result = fedqana(*command, folder=tmp_path, before=full_disk)
    refused(result, 40, "cannot write", "free some space")


# -- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--rounds", "0"), "--rounds 0: give at least one float round"),
        (("--rounds", "0", "--qat-rounds", "0"), "at least one float round"),
        (("--rounds", "-1"), "--rounds -1"),
        (("--batch", "0"), "batch"),
        (("--seed", "-1"), "seed"),
        (("--arrivals", "0.9"), "--arrivals"),
        (("--sites", "nonsense"), "nonsense"),
        (("--sites", "iid:0"), "iid:0"),
        (("--new-class", "nonsense"), "--new-class nonsense: give CODE@ROUND@SITE"),
        (("--new-class", "vasc@99@studio"), "a round from 1 to"),
        (("--new-class", "vasc@1@nosuch"), "nosuch"),
        (("--baseline", "nosuch"), "--baseline nosuch: no such site"),
        (("--data", "synthetic:3"), "synthetic:3: give at least 50"),
        (("--data", "synthetic:²"), "synthetic:²: give at least 50"),
        (("--run", "a/b"), "--run a/b: use letters"),
        (("--run", "cache"), "--run cache: the output folder has its own"),
        (("--seed", "-1"), "--seed"),
        (("--seed", "4294967296"), "--seed"),
        (("--deadline", "inf"), "deadline: Input should be a finite number"),
        (("--database", "nonsense"), "sqlite:///path"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_settings_that_contradict_themselves(
    options: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    # In this process, because starting one for each would take most of the time.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fedqana", "simulate", *TINY, *options])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capfd.readouterr()
    assert isinstance(ended.value.code, int)
    refused(subprocess.CompletedProcess([], ended.value.code, shown.out, shown.err), 60, said)
    assert "Value error" not in shown.err
    assert not list(tmp_path.glob("fedqana-out/*/data.json"))


def test_a_failed_start_leaves_what_was_there(two_classes: Path, tmp_path: Path) -> None:
    (two_classes / "nv" / "2.jpg").write_bytes(b"no jpeg")
    before = sorted(two_classes.rglob("*"))
    arguments = ("simulate", "--out", tmp_path, "--run", two_classes.name, "--data", two_classes)
    result = fedqana(*arguments, "--sites", "iid:1")
    refused(result, 33, str(two_classes), "is there already and is no run")
    assert sorted(two_classes.rglob("*")) == before


@pytest.mark.parametrize(
    ("counts", "said"),
    [({"nv": 9}, "fewer than two classes"), ({"nv": 1, "mel": 1}, "no site has a validation")],
)
def test_data_on_which_training_would_be_wrong(
    counts: dict[str, int], said: str, tmp_path: Path
) -> None:
    folder = class_folders(tmp_path / "images", counts)
    result = fedqana("simulate", "--data", folder, "--sites", "iid:1", folder=tmp_path)
    refused(result, 13, said)
    assert not list(tmp_path.glob("fedqana-out/*/data.json"))


def test_results_that_cannot_be_written(out: Path) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "simulation.cli", "runs", "list", "--out", out],
            cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert result.returncode == 40
    assert result.stderr.startswith("fedqana: cannot use the output: No space left on device")


def test_a_history_with_a_damaged_value(out: Path) -> None:
    with open_history(default_url(out)) as history:
        history.save_run(example_run())
    database = sqlite3.connect(out / "history.db")
    for wrong in ("x'ff'", "'{'"):
        database.execute(f"UPDATE runs SET plan = {wrong}")
        database.commit()
        refused(fedqana("runs", "show", "latest", "--out", out), 41, "history.db is damaged")


# -- how it is told ---------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 2])
def test_debug_adds_the_traceback(place: int, out: Path) -> None:
    command: list[str | Path] = ["runs", "show", "nosuch", "--out", out]
    command.insert(place, "--debug")
    result = fedqana(*command)
    assert result.returncode == 32
    assert "Traceback (most recent call last)" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("fedqana: no run 'nosuch'")


def test_an_unknown_option_is_a_usage_error() -> None:
    result = fedqana("runs", "list", "--nosuch")
    refused(result, 2, "No such option '--nosuch'", "; see 'fedqana runs list --help'")


def test_the_libraries_leave_the_terminal_alone() -> None:
    script = """
import numpy as np
from common.akida_runtime import DEVICES
from common.keras_setup import keras, tf
from server.flower import aggregate
from server.plan import RunPlan
plan = RunPlan(run="r", seed=1, classes=("nv", "mel"))
weights = {"head/bias": np.ones(2, np.float32)}
aggregate(plan, 1, weights, {"a": (weights, 3), "b": (weights, 1)}, {})
"""
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (result.stdout, result.stderr) == ("", "")
