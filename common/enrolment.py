"""How a site comes to take part: the enrolment file, and what it and the server say to each other.

The file goes to the hospital by a way that both trust, e.g. encrypted mail: it vouches for the
server's certificate and for the key that model bundles are signed with. The hospital makes its key
itself and sends the public part with the one-time code.
"""

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from common.errors import DataNotFound, EnrolmentRefused
from common.files import write_atomically

SITE_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
PREFIX = "/fedqana/v1"


class _Form(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EnrolmentFile(_Form):
    """What the coordinator hands to a hospital.

    Parameters
    ----------
    address : str
        ``HOST:PORT`` that the site reaches over TLS.
    ca : str
        PEM of the certificate authority that signed the server's certificate.
    seal : str
        Public Ed25519 key that model bundles are signed with, base64.
    code : str
        One-time code; whoever has it can join under this name, so keep the file secret.
    """

    fedqana_enrolment: Literal[1] = 1
    site: str = Field(pattern=SITE_NAME)
    address: str
    ca: str
    seal: str = Field(min_length=40)
    code: str
    expires: datetime

    def write(self, path: Path) -> None:
        """Write the file, readable by its owner only."""
        write_atomically(path, (self.model_dump_json(indent=2) + "\n").encode(), mode=0o600)


def read_enrolment(path: Path) -> EnrolmentFile:
    """The enrolment file at ``path``; DataNotFound or EnrolmentRefused in one line."""
    try:
        return EnrolmentFile.model_validate(json.loads(path.read_bytes()))
    except FileNotFoundError as error:
        raise DataNotFound(
            f"there is no enrolment file {path}; ask the coordinator for one"
        ) from error
    except (OSError, ValueError) as error:
        raise EnrolmentRefused(
            f"{path} is no enrolment file of this version ({_first(error)}); ask the coordinator "
            "for a new one"
        ) from error


def check_site_name(name: str) -> bool:
    """Whether a site may be called so."""
    return re.fullmatch(SITE_NAME, name) is not None


class Hello(_Form):
    """What the server says of itself to anyone."""

    fedqana: str
    protocol: int
    flwr: str
    time: datetime


class JoinAsk(_Form):
    """A site's key for its one-time code; ``signature`` is of `join_content` by that key."""

    site: str = Field(pattern=SITE_NAME)
    code: str = Field(max_length=100)
    public_key: str = Field(max_length=1000)
    signature: str = Field(max_length=1000)
    software: dict[str, str] = Field(default={}, max_length=20)


class StateAsk(_Form):
    """A site asks how it stands; ``signature`` is of `state_content`."""

    site: str = Field(pattern=SITE_NAME)
    at: AwareDatetime
    signature: str = Field(max_length=1000)


class StateReply(_Form):
    """How a site stands with the coordinator, and the fingerprint of the key it is known by."""

    state: Literal["invited", "pending", "approved", "revoked", "unknown"]
    fingerprint: str = ""


class Refusal(_Form):
    """Why the server did not do what it was asked: one line."""

    refused: str


def join_content(site: str, code: str, public_key: str) -> bytes:
    """What a joining site signs: proof that it has the private key."""
    return f"fedqana join 1\n{site}\n{code}\n{public_key}".encode()


def state_content(site: str, at: datetime) -> bytes:
    """What a site signs to ask for its state."""
    return f"fedqana state 1\n{site}\n{at.isoformat()}".encode()


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        found = error.errors(include_input=False)[0]
        where = ".".join(str(part) for part in found["loc"]) or "the file"
        return f"{where}: {found['msg']}"
    return "it cannot be read"
