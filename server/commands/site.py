"""`fedqana site`: who may take part."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from server.commands.options import json_option, server_option

if TYPE_CHECKING:
    from server.history.records import Member


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def site() -> None:
    """Hospital sites: invite, approve, list, revoke."""


@site.command()
@click.argument("name")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The enrolment file.  [default: NAME.enrolment.json]",
)
@server_option
@json_option
def invite(name: str, out: Path | None, server_dir: Path, as_json: bool) -> None:
    """Write an enrolment file for a site called NAME.

    Hand it over by a way that both sides trust: whoever has it can ask to join under this name.
    """
    from server.sites import invite as invite_site

    path = out or Path(f"{name}.enrolment.json")
    enrolment = invite_site(server_dir.resolve(), name, path)
    if as_json:
        values = {"site": name, "file": str(path), "expires": enrolment.expires.isoformat()}
        click.echo(json.dumps(values, indent=2))
        return
    click.echo(
        f"enrolment file {path} for {name}, valid until {enrolment.expires:%Y-%m-%d %H:%M} UTC"
    )
    click.echo("hand it to the hospital on a trusted way; it joins with: fedqana client join FILE")


@site.command("list")
@server_option
@json_option
def list_sites(server_dir: Path, as_json: bool) -> None:
    """List all sites: how they stand, when they were last heard."""
    from server.commands.terminal import print_table
    from server.sites import listed

    found = listed(server_dir.resolve())
    if as_json:
        click.echo(json.dumps([_json(member, online) for member, online in found], indent=2))
        return
    rows = [
        [
            member.name,
            member.state,
            {True: "online", False: "offline", None: "-"}[online],
            _moment(member.heard_at),
            _moment(member.joined_at),
            _fingerprint(member),
        ]
        for member, online in found
    ]
    if not rows:
        click.echo("no sites yet; invite one with 'fedqana site invite NAME'")
        return
    print_table("", ["site", "state", "node", "last heard", "joined", "key"], rows)


@site.command()
@click.argument("name")
@server_option
@json_option
def approve(name: str, server_dir: Path, as_json: bool) -> None:
    """Let a site that has joined take part.

    Compare the key's fingerprint with the one that the hospital sees before.
    """
    from server.sites import approve as approve_site

    member = approve_site(server_dir.resolve(), name)
    if as_json:
        click.echo(json.dumps(_json(member, None), indent=2))
        return
    click.echo(f"{name} takes part from now on; its key is {_fingerprint(member)}")


@site.command()
@click.argument("name")
@server_option
@json_option
def revoke(name: str, server_dir: Path, as_json: bool) -> None:
    """Refuse a site from now on; no round waits for it any more."""
    from server.sites import revoke as revoke_site

    member = revoke_site(server_dir.resolve(), name)
    if as_json:
        click.echo(json.dumps(_json(member, None), indent=2))
        return
    click.echo(f"{name} is refused from now on")


def _json(member: "Member", online: bool | None) -> dict[str, Any]:
    moments = ("invited_at", "joined_at", "approved_at", "revoked_at", "heard_at")
    return {
        "name": member.name,
        "state": member.state,
        "online": online,
        "fingerprint": _fingerprint(member),
        "node_id": member.node_id,
        "software": member.software,
        "expires_at": member.expires_at.isoformat(),
        **{m: v.isoformat() if (v := getattr(member, m)) else None for m in moments},
    }


def _fingerprint(member: "Member") -> str:
    from common.keys import fingerprint

    return fingerprint(member.public_key) if member.public_key else ""


def _moment(value: Any) -> str:
    return f"{value:%Y-%m-%d %H:%M:%S}" if value else "-"
