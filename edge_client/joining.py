"""Joining a coordinator: data prepared, key made on the spot, registered, settings written."""

import os
import secrets
from importlib.metadata import version
from pathlib import Path

from common import __version__
from common.classes import ClassMap
from common.enrolment import StateReply, read_enrolment
from common.errors import SettingsError
from common.files import write_atomically, writing_to
from common.keys import new_site_key, write_secret
from common.saliency.choice import CropChoice, Tell
from edge_client.client_folder import CONFIG, ClientFolder
from edge_client.coordinator import Coordinator
from edge_client.policy import POLICY, POLICY_TEMPLATE
from edge_client.site import SiteData
from edge_client.site_preparation import prepare_site

_SECRET_BYTES = 32


def join(
    home: Path,
    enrolment: Path,
    data: Path,
    classes: ClassMap,
    size: int,
    port: int,
    crop: CropChoice | None = None,
    tell: Tell = lambda done, total: None,
) -> tuple[StateReply, SiteData]:
    """Set up an edge client's home and register it; it can be called again after a failure.

    The private key is made here and stays here. Settings are written last, so a folder with
    settings is one that has joined; SettingsError where it has.
    """
    folder = ClientFolder(home)
    invitation = read_enrolment(enrolment)
    if (home / CONFIG).exists():
        raise SettingsError(
            f"{home} has joined as {folder.config().site!r} already; choose another --home, or "
            "move the folder away to join anew"
        )
    with writing_to(home):
        home.mkdir(parents=True, exist_ok=True)
        os.chmod(home, 0o700)  # noqa: PTH101 (the folder holds patients' images)
    site = prepare_site(home, invitation.site, data, classes, size, crop, tell)
    if not folder.key.exists():
        write_secret(folder.key, new_site_key())
    if not folder.runner_secret.exists():
        write_secret(folder.runner_secret, secrets.token_hex(_SECRET_BYTES).encode())
    write_atomically(folder.ca, invitation.ca.encode())
    if not (home / POLICY).exists():
        write_atomically(home / POLICY, POLICY_TEMPLATE.encode())
    coordinator = Coordinator(invitation.address, folder.ca)
    try:
        reply = coordinator.join(
            invitation.site, invitation.code, folder.key.read_bytes(), software()
        )
    finally:
        coordinator.close()
    folder.write_config(invitation.site, invitation.address, invitation.seal, port)
    return reply, site


def join_again(home: Path, enrolment: Path) -> StateReply:
    """Register a joined site anew, with a new key; data, state, policy and settings stay.

    For a key that is to be changed, or a server that was set up anew. The old key is kept as
    ``site.key.old`` until the next time. SettingsError where the enrolment is for another site.
    """
    folder = ClientFolder(home)
    config = folder.config()
    invitation = read_enrolment(enrolment)
    if invitation.site != config.site:
        raise SettingsError(
            f"{enrolment} is for {invitation.site!r}, and {home} is {config.site!r}; use the right "
            "file, or another --home"
        )
    new = folder.key.with_name("site.key.new")
    if not new.exists():  # a try before may have been registered already
        write_secret(new, new_site_key())
    authority = folder.ca.with_name("ca.crt.new")
    write_atomically(authority, invitation.ca.encode())
    coordinator = Coordinator(invitation.address, authority)
    try:
        reply = coordinator.join(invitation.site, invitation.code, new.read_bytes(), software())
    finally:
        coordinator.close()
    folder.change_coordinator(invitation.address, invitation.seal)
    with writing_to(folder.key):
        authority.replace(folder.ca)
        old = folder.key.with_name("site.key.old")
        old.unlink(missing_ok=True)
        os.link(folder.key, old)
        new.replace(folder.key)  # last: until then another try uses the same new key
    return reply


def software() -> dict[str, str]:
    """What this site runs, as the coordinator's list of sites shows it."""
    names = ("flwr", "tensorflow", "akida", "cnn2snn", "quantizeml")
    return {"fedqana": __version__, **{name: version(name) for name in names}}
