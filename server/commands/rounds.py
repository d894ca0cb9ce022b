"""`fedqana rounds`: runs of the deployed server."""

import json
import time
from pathlib import Path
from typing import Any

import click

from common.commands.options import classes_option
from server.commands.options import json_option, server_option
from server.commands.plan_options import plan_options

_RUN = click.argument("run", default="latest")
_LOOK_SECONDS = 1.0


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def rounds() -> None:
    """Rounds with the hospitals: start, watch, stop, resume."""


@rounds.command()
@classes_option
@plan_options
@click.option(
    "--crop",
    default="centre",
    show_default=True,
    type=click.Choice(["centre", "whole", "saliency", "grad-cam"]),
    help="How the sites' images are cropped; sites that were prepared otherwise are left out.",
)
@click.option("--gather", default=60.0, show_default=True, help="Seconds to wait for all sites.")
@click.option("--run", "name", help="Name of the run.  [default: date and time]")
@server_option
@json_option
def start(classes: Any, name: str | None, server_dir: Path, as_json: bool, **options: Any) -> None:
    """Start a run with all approved sites that are connected.

    Float rounds, then quantization-aware rounds; after each an Akida program, signed and
    delivered to every site.
    """
    from server.commands.plan_options import plan_settings
    from server.new_run import new_run

    settings, initial = plan_settings(options)
    run = new_run(server_dir.resolve(), name, classes.codes, settings, initial)
    if as_json:
        click.echo(json.dumps({"run": run}))
        return
    click.echo(f"run {run} started; watch it with: fedqana rounds status {run} --watch")


@rounds.command()
@_RUN
@click.option("--watch", is_flag=True, help="Go on showing it until the run ends.")
@server_option
@json_option
def status(run: str, watch: bool, server_dir: Path, as_json: bool) -> None:
    """Show how a run stands: which sites are in, who is late, what each reported.

    RUN is a name, the beginning of one, or "latest": the one under way, else the newest. With
    --watch and --json a line of JSON is printed at every change.
    """
    from server.round_status import run_status
    from server.server_settings import ServerFolder

    folder = ServerFolder(server_dir.resolve())
    if not watch:
        found = run_status(folder, run)
        _show(found, as_json)
        return
    _watch(folder, run, as_json)


@rounds.command()
@_RUN
@server_option
@json_option
def stop(run: str, server_dir: Path, as_json: bool) -> None:
    """Stop a run after its last finished step; 'rounds resume' goes on from there.

    Without a name it is the one under way.
    """
    from server.run_control import find_run_name, stop_run
    from server.server_settings import ServerFolder

    folder = ServerFolder(server_dir.resolve())
    name = find_run_name(folder, run)
    stop_run(folder, name)
    _done(name, "stopped", as_json)


@rounds.command()
@_RUN
@server_option
@json_option
def resume(run: str, server_dir: Path, as_json: bool) -> None:
    """Go on with a run that was stopped, from its last finished step."""
    from server.run_control import find_run_name, resume_run
    from server.server_settings import ServerFolder

    folder = ServerFolder(server_dir.resolve())
    name = find_run_name(folder, run)
    resume_run(folder, name)
    _done(name, "goes on", as_json)


@rounds.command()
@_RUN
@click.option("--follow", is_flag=True, help="Go on showing new lines until interrupted.")
@click.option(
    "--lines",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="How many of the last lines.",
)
@server_option
@json_option
def logs(run: str, follow: bool, lines: int, server_dir: Path, as_json: bool) -> None:
    """Show the log of a run's process; with --json the lines as they are written."""
    from server.deployed_run import LOG
    from server.run_control import find_run_name
    from server.server_settings import ServerFolder

    folder = ServerFolder(server_dir.resolve())
    path = folder.runs / find_run_name(folder, run) / LOG
    text = path.read_text() if path.exists() else ""
    for line in text.splitlines()[-lines:]:
        _log_line(line, as_json)
    if not follow:
        return
    position = len(text.encode())
    while True:
        time.sleep(_LOOK_SECONDS)
        size = path.stat().st_size if path.exists() else 0
        position = 0 if size < position else position  # rotated
        if size > position:
            with path.open("rb") as stream:
                stream.seek(position)
                new = stream.read()
            whole = new[: new.rfind(b"\n") + 1]
            position += len(whole)
            for line in whole.decode().splitlines():
                _log_line(line, as_json)


def _log_line(line: str, as_json: bool) -> None:
    if as_json:
        click.echo(line)
        return
    try:
        value = json.loads(line)
    except ValueError:
        return
    where = f"round {value['round']} {value['step']}: " if "round" in value else ""
    click.echo(f"{value['at'][:19]}  {value['level']:<8}{where}{value['message']}")


def _done(run: str, what: str, as_json: bool) -> None:
    click.echo(json.dumps({"run": run, "state": what}) if as_json else f"run {run} {what}")


def _show(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    from server.commands.terminal import plain_console, print_table

    console = plain_console()
    for line in _headline(found):
        console.print(line, soft_wrap=True)
    print_table("", _COLUMNS, _rows(found))


_COLUMNS = ["site", "node", "in", "last step", "seconds", "cases", "MB up", "what it said"]


def _headline(found: dict[str, Any]) -> list[str]:
    lines = [
        f"run {found['run']}: {found['state']}" + (f" ({r})" if (r := found["reason"]) else "")
    ]
    now = found["progress"]
    if now:
        left = (
            f", about {found['left_minutes']:.0f} min to the end" if found["left_minutes"] else ""
        )
        lines.append(
            f"round {now['round']} of {now['rounds']} ({now['phase']}), step {now['step']}{left}"
        )
        if now["waiting"]:
            left = f"{now['left']:.0f} s left for this step"
            lines.append(f"waiting for {', '.join(now['waiting'])}, {left}")
    if found["balanced_accuracy"] is not None:
        lines.append(f"balanced accuracy on validation: {found['balanced_accuracy']:.3f}")
    return lines


def _rows(found: dict[str, Any]) -> list[list[str]]:
    return [
        [
            site["site"],
            site["node"],
            "yes" if site["accepted"] else "no",
            f"{site['step']} {site['round']}" if site["step"] else "-",
            f"{site['seconds']:.1f}" if site["step"] else "-",
            str(site["cases"]),
            f"{site['bytes_up'] / 1e6:.2f}",
            site["reason"] or site["said"] or "-",
        ]
        for site in found["sites"]
    ]


def _watch(folder: Any, run: str, as_json: bool) -> None:
    from server.round_status import run_status
    from server.run_control import find_run_name

    name = find_run_name(folder, run)
    if as_json:
        before = ""
        while True:
            found = run_status(folder, name)
            text = json.dumps(found)
            if text != before:
                click.echo(text)
                before = text
            if found["ended"]:
                return
            time.sleep(_LOOK_SECONDS)
    from rich.console import Group
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    with Live(auto_refresh=False) as live:
        while True:
            found = run_status(folder, name)
            table = Table(box=None, pad_edge=False, header_style="bold")
            for column in _COLUMNS:
                table.add_column(column)
            for row in _rows(found):
                table.add_row(*(Text(cell) for cell in row))
            live.update(Group(*(Text(line) for line in _headline(found)), table), refresh=True)
            if found["ended"]:
                return
            time.sleep(_LOOK_SECONDS)
