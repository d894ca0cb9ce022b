"""`fedqana client check`: what is wrong with a site, and what to do."""

import json
from pathlib import Path

import click

from edge_client.commands.options import home_option, json_option


@click.command()
@home_option
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Look at a folder of labelled images too.",
)
@json_option
def check(home: Path, data: Path | None, as_json: bool) -> None:
    """Look at everything that this site needs; one line each, and what to do.

    Settings, keys, the way to the server, clock, membership, versions, disk, memory, cases, audit
    log, state, Akida device. Works without a network too. Exit status 54 where something is to be
    mended; warnings do not count. docs/client-check.md explains every line.
    """
    from common.errors import CheckFailed
    from edge_client.checks import run_checks

    findings = []
    for found in run_checks(home.resolve(), data):
        findings.append(found)
        if not as_json:
            click.echo(f"{found.standing:<12} {found.check:<12} {found.text}")
    failures = [found.check for found in findings if found.standing == "failed"]
    if as_json:
        values = {
            "home": str(home),
            "passed": not failures,
            "checks": [found.to_json() for found in findings],
        }
        click.echo(json.dumps(values, indent=2))
    if failures:
        raise CheckFailed(
            f"{len(failures)} of {len(findings)} checks failed ({', '.join(failures)}); do what "
            "their lines say, then check again"
        )
