"""`fedqana runs`: what the history remembers of the runs."""

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from server.commands.options import database_option, database_url, json_option, out_option

if TYPE_CHECKING:
    from server.history.records import RunRecord


@click.group()
def runs() -> None:
    """List runs, show one, write its report.

    RUN is a run's id, a unique beginning of one, or "latest".
    """


@runs.command(name="list")
@out_option
@database_option
@json_option
def list_runs(out: Path, database: str | None, as_json: bool) -> None:
    """List the runs, newest first."""
    from server.commands.run_tables import print_summaries
    from server.history.store import open_history

    with open_history(database_url(database, out), create=False) as history:
        summaries = history.list_summaries()
    if as_json:
        _print_json([asdict(summary) for summary in summaries])
    elif summaries:
        print_summaries(summaries)
    else:
        click.echo("no runs yet; start one with fedqana simulate")


@runs.command()
@click.argument("run")
@out_option
@database_option
@json_option
def show(run: str, out: Path, database: str | None, as_json: bool) -> None:
    """Show a run's plan, sites, rounds, replies, model versions, edge updates and events."""
    from server.commands.run_tables import print_record

    record = _load(run, out, database)
    if as_json:
        _print_json(asdict(record))
    else:
        print_record(record)


@runs.command()
@click.argument("run")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The HTML file to write.  [default: report.html in the run's folder]",
)
@out_option
@database_option
@json_option
def report(run: str, output: Path | None, out: Path, database: str | None, as_json: bool) -> None:
    """Write a run's report, one HTML file, and print its path."""
    from server.report.build import write_report

    record = _load(run, out, database)
    # The output folder may have been moved since.
    folders = (Path(record.run.folder), out / record.run.run_id)
    path = output or next((f for f in folders if f.is_dir()), folders[0]) / "report.html"
    write_report(record, path)
    if as_json:
        _print_json({"run_id": record.run.run_id, "report": str(path)})
    else:
        click.echo(path)


@runs.command()
@click.argument("names", metavar="RUN...", nargs=-1, required=True)
@click.option(
    "--spread",
    is_flag=True,
    help="Print the mean and standard deviation over the runs, which repeat one another with "
    "other seeds.",
)
@out_option
@database_option
@json_option
def compare(
    names: tuple[str, ...], spread: bool, out: Path, database: str | None, as_json: bool
) -> None:
    """Print several runs' metrics on their test lesions side by side, each head a line.

    The metrics are those of the whole test set, so runs are comparable where they were made
    with the same --data, --sites and --seed; a baseline is judged on all sites' test lesions.
    """
    from server.commands.run_tables import print_comparison, print_spread
    from server.comparison import compare_runs, spread_over_runs

    rows = compare_runs([_load(name, out, database) for name in names])
    if spread:
        spreads = spread_over_runs(rows)
        if as_json:
            _print_json([row.to_json() for row in spreads])
        else:
            print_spread(spreads)
    elif as_json:
        _print_json([row.to_json() for row in rows])
    else:
        print_comparison(rows)


def _load(run: str, out: Path, database: str | None) -> "RunRecord":
    from server.history.store import open_history

    with open_history(database_url(database, out), create=False) as history:
        return history.load_record(run)


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, default=_moment))


def _moment(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no JSON form")
