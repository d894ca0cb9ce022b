"""Inviting, approving and revoking sites: the members in the database, their keys at Flower."""

from pathlib import Path

from common.enrolment import EnrolmentFile, check_site_name
from common.errors import ServiceUnavailable, SettingsError
from common.keys import seal_public
from server.flower_control import flower_control
from server.history.records import Member
from server.run_control import one_at_a_time
from server.server_database import open_members
from server.server_settings import ServerFolder


def invite(path: Path, name: str, file: Path) -> EnrolmentFile:
    """Write a site's enrolment file; SettingsError for a name that cannot be or takes part."""
    folder = ServerFolder(path)
    settings = folder.settings()
    if not check_site_name(name):
        raise SettingsError(
            f"{name!r}: a site's name has a to z, A to Z, digits, '.', '_' and '-' only"
        )
    with open_members(folder) as members:
        before = members.find(name)
        if before is not None and before.node_id and before.state != "approved":
            with flower_control(folder) as control:
                control.unregister(before.node_id)
        member, code = members.invite(name, settings.sites.invitation_hours)
    enrolment = EnrolmentFile(
        site=name,
        address=settings.address,
        ca=folder.ca.read_text(),
        seal=seal_public(folder.bundle_key.read_bytes()),
        code=code,
        expires=member.expires_at,
    )
    enrolment.write(file)
    return enrolment


def listed(path: Path) -> list[tuple[Member, bool | None]]:
    """All sites and whether their node is online; None where nobody knows."""
    folder = ServerFolder(path)
    with open_members(folder) as members:
        found = members.all()
    try:
        with flower_control(folder) as control:
            online = {node.node_id: node.status == "online" for node in control.nodes()}
    except ServiceUnavailable:  # the server is down: the list is still of use
        online = {}
    return [(member, online.get(member.node_id)) for member in found]


def approve(path: Path, name: str) -> Member:
    """Register a pending site's key with Flower and let it take part."""
    folder = ServerFolder(path)
    with one_at_a_time(folder), open_members(folder) as members:
        member = members.get(name)
        if member.state == "approved":
            return member
        if member.state != "pending":
            raise SettingsError(
                f"site {name} is {member.state}, not waiting for approval; it joins first with its "
                "enrolment file ('fedqana client join FILE')"
            )
        with flower_control(folder) as control:
            node_id = control.register(member.public_key, name)
        return members.approve(name, node_id, member.public_key)


def revoke(path: Path, name: str) -> Member:
    """Take a site's membership away, at Flower too; the database first, so that it holds.

    The round loop asks approved sites only, so a site is out even where Flower does not answer;
    then ServiceUnavailable says to revoke it again.
    """
    folder = ServerFolder(path)
    with open_members(folder) as members:
        member = members.revoke(name)
    if member.node_id:
        try:
            with flower_control(folder) as control:
                control.unregister(member.node_id)
        except ServiceUnavailable as error:
            raise ServiceUnavailable(
                f"{name} is revoked and no round asks it any more; its key is refused as soon as "
                "the server is up again ('fedqana server start')"
            ) from error
    return member
