"""`fedqana client audit`: what has left this site."""

import json
from pathlib import Path

import click

from edge_client.commands.options import home_option, json_option


@click.command()
@home_option
@json_option
@click.option(
    "--verify",
    "only_verify",
    is_flag=True,
    help="Check the chain instead of listing; exit status 41 where a line was changed or removed.",
)
def audit(home: Path, as_json: bool, only_verify: bool) -> None:
    """List every message that left this site, oldest first.

    See docs/policy.md for the fields of a line, and for what the chain of hashes can show.
    """
    from common.errors import DataNotFound, StateDamaged
    from edge_client.audit_log import entries, verify
    from edge_client.policy import is_governed

    if not is_governed(home):
        raise DataNotFound(
            f"{home} is not an edge client's folder: it has no policy and no audit log; join "
            "with 'fedqana client join' or name the folder with --home"
        )
    report = verify(home)
    if not only_verify:
        found = entries(home)
        if report.problems:
            click.echo("not all lines are as they were written; see --verify", err=True)
        if as_json:
            click.echo(json.dumps([entry.to_json() for entry in found], indent=2))
            return
        for entry in found:
            about = entry.code or entry.note or ", ".join(entry.contents)
            where = f"{entry.run} {entry.round}" if entry.run else "-"
            click.echo(
                f"{entry.line:>6}  {entry.at}  {entry.kind:<10} {where:<16} "
                f"{entry.payload_bytes:>9} bytes  {about}"
            )
        return
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2))
    else:
        click.echo(f"{report.lines} lines in {len(report.files)} files")
        if report.last_hash:
            click.echo(f"hash of the last one: {report.last_hash}")
        if report.unfinished_bytes:
            click.echo(
                f"after it {report.unfinished_bytes} bytes of a line that a crash cut off (its "
                "message was not sent); the next message removes them"
            )
        for problem in report.problems:
            click.echo(f"  - {problem}")
    if report.problems:
        raise StateDamaged(
            f"the audit log in {home} is not as it was written: {len(report.problems)} "
            "problem(s), listed above; compare it with a backup"
        )
