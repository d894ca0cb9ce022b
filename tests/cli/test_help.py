import subprocess
import sys
import time

import click
import pytest

from simulation.cli import cli
from tests.cli.command import ROOT, fedqana

HEAVY = ("akida", "cnn2snn", "flwr", "matplotlib", "numpy", "sqlalchemy", "tensorflow", "tf_keras")
SECONDS = 0.4
RUNS = 3


def all_commands() -> list[tuple[str, ...]]:
    context = click.Context(cli)
    found: list[tuple[str, ...]] = [()]
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        found.append((name,))
        if isinstance(command, click.Group):
            found += [(name, member) for member in command.list_commands(context)]
    return found


COMMANDS = all_commands()


def test_the_walk_finds_groups_and_their_commands() -> None:
    assert {(), ("simulate",), ("data", "check"), ("model", "evaluate")} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: " ".join(c) or "fedqana")
def test_help_answers_at_once(command: tuple[str, ...]) -> None:
    # The best of three: the limit is the program's, not that of a busy machine.
    fastest = float("inf")
    for _ in range(RUNS):
        started = time.perf_counter()
        result = fedqana(*command, "--help")
        fastest = min(fastest, time.perf_counter() - started)
        assert result.returncode == 0, result.stderr
        assert result.stdout.startswith("Usage: ")
        if fastest < SECONDS:
            return
    pytest.fail(f"{fastest:.2f} s")


def test_no_help_imports_anything_heavy() -> None:
    script = f"""
import sys
import click
from click.testing import CliRunner
from simulation.cli import cli
for command in {COMMANDS!r}:
    assert CliRunner().invoke(cli, [*command, "--help"]).exit_code == 0
print(*(name for name in {HEAVY!r} if name in sys.modules))
"""
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == ""
