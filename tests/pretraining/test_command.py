"""`fedqana model pretrain`, and runs that start from what it wrote."""

import json
from pathlib import Path

import numpy as np
import pytest

from common.errors import DataUnreadable, StateDamaged
from common.qana.initial import start_from, start_id, to_content
from common.qana.networks import initial_weights
from server.commands.plan_options import plan_settings
from server.history.engine import default_url
from server.run_folder import INITIAL, RunFolder
from simulation.run import create_run, execute
from tests.cli.command import fedqana
from tests.support.tiny_run import TINY, create_tiny, tiny_data, tiny_plan


def test_pretrain_writes_weights_that_a_plan_names(tmp_path: Path) -> None:
    file = tmp_path / "start.npz"
    small = ("--network", "small", "--elements", "residual")
    made = fedqana(
        "model", "pretrain", "--pictures", "procedural:80", "--epochs", "1", *small,
        "--out", str(file), "--json",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    told = json.loads(made.stdout)
    assert told["sha256"] == start_id(file.read_bytes())
    assert (told["pictures"], told["n_pictures"], told["epochs"]) == ("procedural:80", 80, 1)

    options = {"float_rounds": 1, "network": "small", "initial": str(file)}
    settings, content = plan_settings({**options, "elements": "residual"})
    assert settings["config"].elements == ("residual",)
    with pytest.raises(DataUnreadable, match="not of a network of this shape"):
        plan_settings({**options, "elements": "residual,attention"})
    with pytest.raises(DataUnreadable, match="of a network with more elements than this one"):
        plan_settings({**options, "elements": "none"})
    assert settings["initial"] == told["sha256"]
    assert content == file.read_bytes()


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        (["--pictures", "procedural:12"], 60),
        (["--pictures", "procedural:many"], 60),
        (["--pictures", "procedural:99999999999"], 60),
        (["--out", "/proc/none/x.npz"], 40),
        (["--out", "/dev/null"], 60),
        (["--pictures", "nowhere"], 10),
        (["--epochs", "0"], 2),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path: Path, wrong: list[str], status: int) -> None:
    result = fedqana("model", "pretrain", "--out", str(tmp_path / "x.npz"), *wrong)
    assert result.returncode == status
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "x.npz").exists()


def test_a_file_that_does_not_fit_is_told_before_the_run_is_there(tmp_path: Path) -> None:
    file = tmp_path / "start.npz"
    file.write_bytes(to_content(initial_weights(TINY, 3, 0), {}))
    result = fedqana(
        "simulate", "--data", "synthetic:60", "--network", "small", "--initial", str(file),
        "--out", str(tmp_path / "out"),
    )  # fmt: skip
    assert result.returncode == 11
    assert str(file) in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("out/*/plan.json"))


def test_a_run_starts_from_its_file_whatever_its_seed(tmp_path: Path) -> None:
    content = to_content(initial_weights(TINY, 3, seed=9), {})
    plan = tiny_plan(initial=start_id(content), seed=4)
    create_run(tmp_path / "run", plan, tiny_data(), content)
    first = RunFolder(tmp_path / "run").first_weights(plan, 7)
    expected = start_from(content, TINY, 7, seed=4)
    assert all(np.array_equal(first[name], expected[name]) for name in expected)


def test_a_run_whose_file_is_gone_or_changed_does_not_start(tmp_path: Path) -> None:
    content = to_content(initial_weights(TINY, 3, seed=9), {})
    folder = create_tiny(tmp_path, initial=start_id(content))
    for there in (None, content[:-1] + b"\x00\x00"):
        if there is not None:
            (folder / INITIAL).write_bytes(there)
        with pytest.raises(StateDamaged, match="initial"):
            execute(folder, "in-process", tmp_path / "cache", default_url(tmp_path))
