"""The edge client's own folder: settings, policy, permissions, keys."""

import base64
import os
import pwd
import ssl
import stat
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from common.classes import HAM10000_NAMES
from common.errors import FedqanaError, SettingsError, StateDamaged
from common.keys import fingerprint, public_part
from edge_client.checks.findings import Check, Outcome, failed, ok, warning
from edge_client.client_folder import ClientFolder
from edge_client.local_service.added_classes import AddedClasses
from edge_client.local_service.settings import endpoint_of, require_safe, settings_of
from edge_client.policy import read_policy
from edge_client.site import SiteFolder

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_SEAL_BYTES = 32
_MOST_FILES = 20_000
"""So many files are looked at for their owner."""


class FolderChecks:
    """Looks at settings and files in a home folder."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._folder = ClientFolder(home)

    def checks(self) -> Sequence[Check]:
        """In the order in which they are shown."""
        return [
            Check("settings", self.settings),
            Check("policy", self.policy),
            Check("permissions", self.permissions),
            Check("keys", self.keys),
        ]

    def settings(self) -> Outcome:
        """``client.toml``: every value can be used."""
        config = self._folder.config()
        host_and_port(config.server)
        try:
            is_key = len(base64.b64decode(config.seal, validate=True)) == _SEAL_BYTES
        except ValueError:
            is_key = False
        if not is_key:
            return failed(
                "client.toml: seal is no Ed25519 key, so no model version can be installed; take "
                "it from the enrolment file"
            )
        service = settings_of(self._home)
        endpoint = endpoint_of(service.address, self._home)
        require_safe(endpoint, service.tls)
        if service.tls:
            service.tls.read()
        if config.watch.folder:
            watched = self._home / config.watch.folder
            if not watched.is_dir():
                return failed(
                    f"client.toml: there is no folder {watched} to watch; make it, or set "
                    'watch.folder = ""'
                )
            if not os.access(watched, os.R_OK | os.W_OK | os.X_OK):
                return failed(
                    f"client.toml: the watched folder {watched} cannot be read and written; "
                    "correct its permissions, files that are done are moved within it"
                )
        return ok(f"site {config.site}, server {config.server}")

    def policy(self) -> Outcome:
        """``policy.toml``: readable, of classes that there are, and whether the site trains."""
        policy = read_policy(self._home)
        known = (*SiteFolder(self._home).codes(), *AddedClasses(self._home / "state").codes)
        # A code of HAM10000's that the site does not have is no slip of the pen.
        usual = {*known, *HAM10000_NAMES}
        unknown = [code for code in policy.referral.classes if code not in usual]
        if unknown:
            return warning(
                f"policy.toml: [referral] classes has {', '.join(unknown)}, which is none of the "
                f"site's ({', '.join(known)}): nothing is referred for it; correct it"
            )
        training = policy.training
        if not training.take_part:
            return ok("the site does not train (take_part = false)")
        window = f" between {training.window}" if training.window else ""
        hours = f", {training.hours_per_day:g} h a day" if training.hours_per_day < 24 else ""
        return ok(f"the site trains{window}{hours}")

    def permissions(self) -> Outcome:
        """Only the owner reads the folder with patients' images and the keys."""
        home = self._home
        owner = home.stat().st_uid
        if os.geteuid() not in (0, owner):
            return failed(
                f"{home} belongs to user {_name(owner)}; run the edge client as that user"
            )
        wrong = [
            f"chmod {mode:o} {path}"
            for path, mode in self._private()
            if path.exists() and path.stat().st_mode & _OTHERS
        ]
        if wrong:
            return failed(
                "other users of this machine can read what is for the client only: "
                + "; ".join(wrong)
            )
        files = _files_below(home, self._watched())
        stranger = next((path for path in files if _owner(path) not in (owner, None)), None)
        if stranger is not None:
            return failed(
                f"{stranger} belongs to another user than the folder, so the client may not write "
                f"it: chown -R {_name(owner)} {home}"
            )
        return ok("only the client's user can read the folder and the keys")

    def keys(self) -> Outcome:
        """The site's key, the authority's certificate and the runner's secret can be used."""
        folder = self._folder
        for needed in (folder.key, folder.ca, folder.runner_secret):
            try:
                content = needed.read_bytes()
            except FileNotFoundError as error:
                raise StateDamaged(
                    f"{needed} is missing; restore it from a backup, or register anew with a new "
                    "enrolment file ('fedqana client rejoin FILE')"
                ) from error
            except OSError as error:
                return failed(
                    f"{needed} cannot be read ({error.strerror}); correct its permissions"
                )
            if not content.strip():
                return failed(
                    f"{needed} is empty; restore it from a backup, or register anew with a new "
                    "enrolment file ('fedqana client rejoin FILE')"
                )
        public = public_part(folder.key.read_bytes())
        if not public.startswith("ecdsa-sha2-nistp384 "):
            return failed(
                f"{folder.key} is no P-384 key, which Flower's node needs; restore it from a backup"
            )
        try:
            ssl.create_default_context(cafile=str(folder.ca))
        except OSError:  # an SSLError is one
            return failed(
                f"{folder.ca} is no certificate; take it from the enrolment file, or restore it"
            )
        return ok(f"the site's key is {fingerprint(public)}")

    def _watched(self) -> Path | None:
        """The folder into which others may put files."""
        try:
            folder = self._folder.config().watch.folder
        except FedqanaError:  # another check says so
            return None
        return self._home / folder if folder else None

    def _private(self) -> Iterator[tuple[Path, int]]:
        yield self._home, 0o700
        yield self._folder.key.parent, 0o700
        yield self._folder.key, 0o600
        yield self._folder.runner_secret, 0o600
        try:
            key = self._folder.config().service.key
        except FedqanaError:  # another check says so
            return
        if key:
            yield self._home / key, 0o600


def host_and_port(address: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``; SettingsError for anything else."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not host or not (port.isascii() and port.isdecimal()) or not 1 <= int(port) <= 65535:
        raise SettingsError(
            f"client.toml: server {address!r} is not HOST:PORT; take it from the enrolment file"
        )
    return host, int(port)


def _files_below(folder: Path, without: Path | None) -> Iterator[Path]:
    found = (
        Path(where, name)
        for where, folders, files in os.walk(folder)
        if without is None or not Path(where).is_relative_to(without)
        for name in (*folders, *files)
    )
    return islice(found, _MOST_FILES)


def _owner(path: Path) -> int | None:
    try:
        return path.lstat().st_uid
    except OSError:  # it is gone meanwhile
        return None


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)
