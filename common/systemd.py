"""A systemd unit for a part of FedQANA that runs for months, closed off from the rest of a machine.

`docs/systemd.md` says why it is as it is.
"""

import pwd
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import common
from common.errors import SettingsError

RESTART_SECONDS = 30
_NEEDS_A_PERSON = (2, 10, 11, 41, 43, 60)
"""Exit statuses that another start does not change; docs/exit-status.md."""
_STOP_SLACK = 15.0
_PEOPLES_FOLDERS = ("/home", "/root", "/run/user")
_TEMPORARY_FOLDERS = ("/tmp", "/var/tmp")


@dataclass(frozen=True)
class Unit:
    """What differs between units.

    Parameters
    ----------
    name : str
        Of the unit, without ``.service``.
    description : str
    arguments : sequence of str
        Of the `fedqana` command.
    folder : Path
        Absolute; where the program runs and may write.
    user : str
    stop_seconds : float
        How long its processes may take to end, all together.
    writable : sequence of Path
        Other folders it writes to.
    devices : sequence of str
        Device nodes it may use; one that is not there is passed over.
    capabilities : sequence of str
    after : sequence of str
        Units that start before it, where they are to start at all.
    """

    name: str
    description: str
    arguments: Sequence[str]
    folder: Path
    user: str
    stop_seconds: float
    writable: Sequence[Path] = ()
    devices: Sequence[str] = ()
    capabilities: Sequence[str] = ()
    after: Sequence[str] = ()


def unit_text(unit: Unit) -> str:
    """The unit file; SettingsError for a path that no unit file can hold."""
    writable = list(dict.fromkeys((unit.folder, *unit.writable)))
    capabilities = " ".join(unit.capabilities)
    lines = [
        f"# {unit.name}.service, made by fedqana {common.__version__}; see docs/systemd.md.",
        "[Unit]",
        f"Description={_specifiers(unit.description)}",
        "Wants=network-online.target",
        " ".join(["After=network-online.target time-sync.target", *unit.after]),
        "# Gives up after half an hour of failures; then: systemctl reset-failed, start.",
        "StartLimitIntervalSec=3600",
        "StartLimitBurst=60",
        "",
        "[Service]",
        "Type=exec",
        f"ExecStart={' '.join(map(_argument, (*_fedqana(), *unit.arguments)))}",
        f"User={unit.user}",
        f"WorkingDirectory={_specifiers(str(unit.folder))}",
        f"SyslogIdentifier={unit.name}",
        "UMask=0077",
        "Restart=on-failure",
        f"RestartSec={RESTART_SECONDS}",
        "# What only a person can mend, see docs/exit-status.md.",
        f"RestartPreventExitStatus={' '.join(map(str, _NEEDS_A_PERSON))}",
        "# SIGTERM goes to the supervisor, which ends its processes in order.",
        "KillMode=mixed",
        f"TimeoutStopSec={unit.stop_seconds + _STOP_SLACK:.0f}",
        "# A process that ran out of memory is started again by the supervisor.",
        "OOMPolicy=continue",
        "LimitNOFILE=16384",
        "",
        "# The file system: read-only but for these folders.",
        "ProtectSystem=strict",
        f"ReadWritePaths={' '.join(map(_path, writable))}",
        f"ProtectHome={'read-only' if _needs(_PEOPLES_FOLDERS, writable) else 'yes'}",
        f"PrivateTmp={'no' if _needs(_TEMPORARY_FOLDERS, writable) else 'yes'}",
        "",
        "# Devices: the usual pseudo-devices" + (" and Akida's." if unit.devices else "."),
        *(["DevicePolicy=closed"] if unit.devices else ["PrivateDevices=yes"]),
        *(f"DeviceAllow={device} rw" for device in unit.devices),
        "",
        "# No more rights than it needs. MemoryDenyWriteExecute is not set: TensorFlow compiles.",
        "NoNewPrivileges=yes",
        f"CapabilityBoundingSet={capabilities}",
        *([f"AmbientCapabilities={capabilities}"] if capabilities else []),
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        "RestrictNamespaces=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        "LockPersonality=yes",
        "ProtectClock=yes",
        "ProtectControlGroups=yes",
        "ProtectHostname=yes",
        "ProtectKernelLogs=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelTunables=yes",
        "ProtectProc=invisible",
        "RemoveIPC=yes",
        "SystemCallArchitectures=native",
        "SystemCallFilter=@system-service",
        "SystemCallFilter=~@privileged",
        "SystemCallErrorNumber=EPERM",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines) + "\n"


def service_user(folder: Path, name: str | None) -> str:
    """The user a unit runs as: ``name``, or the folder's owner.

    Raises SettingsError where there is no such user, or the folder belongs to another one.
    """
    try:
        owner = pwd.getpwuid(folder.stat().st_uid).pw_name
    except KeyError:
        raise SettingsError(
            f"{folder} belongs to a user without a name; give it to the service's user: chown -R "
            f"USER {folder}"
        ) from None
    if name is None:
        return owner
    try:
        pwd.getpwnam(name)
    except KeyError:
        raise SettingsError(
            f"there is no user {name!r} on this machine; make one: useradd --system "
            "--no-create-home --shell /usr/sbin/nologin NAME"
        ) from None
    if name != owner:
        raise SettingsError(
            f"{folder} belongs to {owner}, so {name} could not write it; give it to that user: "
            f"chown -R {name} {folder}"
        )
    return name


def _fedqana() -> Iterator[str]:
    """The command of this installation."""
    script = Path(sys.executable).parent / "fedqana"
    if script.is_file():
        yield str(script)
    else:
        yield from (sys.executable, "-m", "simulation.cli")


def _needs(folders: Sequence[str], writable: Sequence[Path]) -> bool:
    """Whether anything of the service's is below one of ``folders``, which could then not go."""
    installation = Path(common.__file__).parents[1]
    needed = [*writable, Path(sys.prefix), Path(sys.base_prefix), installation]
    return any(
        path.is_relative_to(folder) or path.resolve().is_relative_to(folder)
        for path in needed
        for folder in folders
    )


def _argument(text: str) -> str:
    """A word of ExecStart."""
    return _path(text).replace("$", "$$")


def _path(path: Path | str) -> str:
    """A word of a list."""
    text = _specifiers(str(path))
    if all(c.isalnum() or c in "/._-+:@%$=," for c in text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _specifiers(text: str) -> str:
    """``text`` as it is, although systemd reads % as the begin of a specifier."""
    if not text.isprintable() or text != text.strip() or text.endswith("\\"):
        raise SettingsError(
            f"{text!r} cannot be written into a unit file; choose a folder with a plain name"
        )
    return text.replace("%", "%%")
