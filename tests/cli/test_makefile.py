"""What `make bench` and `make bench-akida` would run, days of it, are commands that there are."""

import shlex
import subprocess
from pathlib import Path

import click
import pytest

from simulation.cli import cli
from tests.cli.command import ROOT

WRITES_DOWN = """#!/bin/sh
printf '%s\\n' "$*" >> {file}
"""


def commands_of(target: str, place: Path) -> list[list[str]]:
    """Arguments of every call of fedqana, as make and the shell hand them over."""
    file, program = place / "called", place / "bin" / "fedqana"
    program.parent.mkdir()
    program.write_text(WRITES_DOWN.format(file=shlex.quote(str(file))))
    program.chmod(0o755)
    (place / ".ready").touch()
    subprocess.run(
        ["make", target, f"VENV={place}", f"OUT={place / 'out'}", "DATA=HAM10000"],
        cwd=ROOT, check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return [line.split() for line in file.read_text().splitlines()]


def understood(command: click.Command, arguments: list[str], parent: click.Context | None) -> None:
    """Raises click.UsageError for arguments that the command does not take; runs nothing."""
    if isinstance(command, click.Group):
        context = click.Context(command, parent=parent, info_name=command.name)
        name, found, rest = command.resolve_command(context, arguments)
        assert found is not None, name
        understood(found, rest, context)
    else:
        command.make_context(command.name, list(arguments), parent=parent)


@pytest.mark.parametrize(("target", "fewest"), [("bench", 60), ("bench-akida", 20)])
def test_every_command_of_the_benchmarks_is_understood(
    target: str, fewest: int, tmp_path: Path
) -> None:
    found = commands_of(target, tmp_path)
    assert len(found) > fewest
    for arguments in found:
        understood(cli, arguments, None)


def test_an_option_that_a_command_lacks_is_noticed() -> None:
    with pytest.raises(click.UsageError, match="fine-tuning-epochs"):
        understood(cli, ["bench", "strategies", "run", "--fine-tuning-epochs", "0"], None)
