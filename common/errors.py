"""Every error that FedQANA raises on purpose, split by who can act on it.

FedqanaError
├── DataError                     the person who owns the images
│   ├── DataNotFound         10   no such folder, file or layout
│   ├── DataUnreadable       11   a file cannot be decoded or parsed
│   ├── UnknownLabel         12   a label outside the class map
│   └── DataUnfit            13   too few lesions, an empty class, failed data check
├── ModelError                    the person who trains or distributes models
│   ├── ModelNotFound        20   no bundle at this path, no such run or version
│   ├── BundleDamaged        21   a file of a bundle is missing or its hash differs
│   ├── ConversionRefused    22   Akida's converter returned something else than asked for
│   └── ModelDoesNotFit      23   the program does not map onto the device
├── RoundError                    the coordinator of a run
│   ├── SiteRefused          30   a site's handshake or reply does not fit (costs it the round)
│   ├── QuorumMissed         31   too few sites answered in time
│   ├── RunNotFound          32   no such run
│   └── RunMismatch          33   resumed with other settings than it was started with
├── StorageError                  whoever runs the machine
│   ├── StorageFull          40   no space left, or a folder that cannot be written
│   ├── StateDamaged         41   a checkpoint or exemplar store fails its own check
│   ├── DatabaseUnreachable  42   the history database cannot be opened
│   ├── SchemaMismatch       43   the history database has another schema version
│   └── StateInUse           44   another process is changing a site's state
├── DeviceError              50   the Akida device refused or disappeared
├── ServiceError                  whoever runs the server or a site's edge client
│   ├── ServerUnreachable    51   the coordinator's server does not answer, or not over TLS
│   ├── EnrolmentRefused     52   an invitation that is unknown, used, expired or revoked
│   ├── ServiceUnavailable   53   a local service is not running or busy
│   └── CheckFailed          54   a check of the site found something that is to be mended
└── SettingsError            60   an option or a plan that contradicts itself

The number is the process's exit status; 2 is a usage error (click), 70 a bug in FedQANA,
130 an interruption. ``docs/exit-status.md`` lists them for users.
"""


class FedqanaError(Exception):
    """Base of all expected errors: one line that says what, where and what to do."""

    exit_status = 1


class DataError(FedqanaError):
    """Something about the images or their labels."""


class DataNotFound(DataError):
    """A folder, file or layout that is not there."""

    exit_status = 10


class DataUnreadable(DataError):
    """A file that cannot be decoded or parsed."""

    exit_status = 11


class UnknownLabel(DataError):
    """A label outside the class map."""

    exit_status = 12


class DataUnfit(DataError):
    """Data on which training would be wrong."""

    exit_status = 13


class ModelError(FedqanaError):
    """Something about a model, its bundle or its program."""


class ModelNotFound(ModelError):
    """No bundle at this path, or no such version."""

    exit_status = 20


class BundleDamaged(ModelError):
    """A bundle whose files are missing or differ from their hashes."""

    exit_status = 21


class ConversionRefused(ModelError):
    """The converter returned another network than the one it was given."""

    exit_status = 22


class ModelDoesNotFit(ModelError):
    """A program that does not map onto the device; the message names the layer."""

    exit_status = 23


class RoundError(FedqanaError):
    """Something about a run or one of its rounds."""


class SiteRefused(RoundError):
    """A handshake or reply that does not fit; it costs its site the round, never the run.

    Parameters
    ----------
    code : str
        Short machine-readable reason, e.g. ``"not-finite"``; never text from a site.
    message : str
        One line for people.
    """

    exit_status = 30

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class QuorumMissed(RoundError):
    """Too few sites answered within the deadline."""

    exit_status = 31


class RunNotFound(RoundError):
    """No run of this name."""

    exit_status = 32


class RunMismatch(RoundError):
    """A run resumed with other settings than those it was started with."""

    exit_status = 33


class StorageError(FedqanaError):
    """Something about disks and databases."""


class StorageFull(StorageError):
    """No space left, or a folder that cannot be written."""

    exit_status = 40


class StateDamaged(StorageError):
    """A checkpoint or store that fails its own check."""

    exit_status = 41


class DatabaseUnreachable(StorageError):
    """The history database cannot be opened."""

    exit_status = 42


class SchemaMismatch(StorageError):
    """The history database has a schema that this version does not work with."""

    exit_status = 43


class StateInUse(StorageError):
    """Another process is changing a site's state folder."""

    exit_status = 44


class DeviceError(FedqanaError):
    """The Akida device refused a request or disappeared."""

    exit_status = 50


class ServiceError(FedqanaError):
    """Something about a server or a local service."""


class ServerUnreachable(ServiceError):
    """The coordinator's server does not answer, or its certificate does not fit."""

    exit_status = 51


class EnrolmentRefused(ServiceError):
    """An invitation or a membership that does not hold."""

    exit_status = 52


class ServiceUnavailable(ServiceError):
    """A service on this machine is not running, or busy for longer than asked to wait."""

    exit_status = 53


class CheckFailed(ServiceError):
    """A check of the site found something to mend."""

    exit_status = 54


class SettingsError(FedqanaError):
    """An option or plan that contradicts itself."""

    exit_status = 60
