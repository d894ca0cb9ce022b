"""The enrolment page: a site's first words to the server, and the question how it stands."""

import asyncio
import logging
from datetime import UTC, datetime
from importlib.metadata import version

from pydantic import BaseModel, ValidationError

from common import __version__
from common.enrolment import (
    PREFIX,
    Hello,
    JoinAsk,
    Refusal,
    StateAsk,
    StateReply,
    join_content,
    state_content,
)
from common.errors import EnrolmentRefused, FedqanaError
from common.keys import fingerprint, is_signed_by_site
from common.messages import PROTOCOL
from server.server_database import open_members
from server.server_settings import ServerFolder

log = logging.getLogger("fedqana.enrolment")

_FRESH_SECONDS = 300


class Enrolment:
    """Answers `common.enrolment`'s questions."""

    def __init__(self, folder: ServerFolder) -> None:
        self._folder = folder

    async def serve(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and JSON for one request."""
        try:
            found = await asyncio.to_thread(self._serve, method, path.removeprefix(PREFIX), body)
        except EnrolmentRefused as error:
            return 403, _json(Refusal(refused=str(error)))
        except ValidationError:
            return 400, _json(Refusal(refused="the request is not understood; update fedqana"))
        except FedqanaError:
            log.exception("a request could not be answered")
            text = "the server cannot answer now; try again later"
            return 503, _json(Refusal(refused=text))
        if found is None:
            return 404, _json(Refusal(refused="there is no such page"))
        return 200, _json(found)

    def _serve(self, method: str, page: str, body: bytes) -> BaseModel | None:
        match method, page:
            case "GET", "/hello":
                return Hello(
                    fedqana=__version__,
                    protocol=PROTOCOL,
                    flwr=version("flwr"),
                    time=datetime.now(UTC),
                )
            case "POST", "/join":
                return self._join(JoinAsk.model_validate_json(body))
            case "POST", "/state":
                return self._state(StateAsk.model_validate_json(body))
        return None

    def _join(self, ask: JoinAsk) -> StateReply:
        content = join_content(ask.site, ask.code, ask.public_key)
        if not is_signed_by_site(ask.public_key, content, ask.signature):
            raise EnrolmentRefused("the key's signature does not fit; join again")
        with open_members(self._folder) as members:
            member = members.join(ask.site, ask.code, ask.public_key, ask.software)
        log.info("site %s joined with key %s", ask.site, fingerprint(ask.public_key))
        return StateReply(state=member.state, fingerprint=fingerprint(member.public_key))

    def _state(self, ask: StateAsk) -> StateReply:
        age = abs((datetime.now(UTC) - ask.at).total_seconds())
        with open_members(self._folder) as members:
            member = members.find(ask.site)
            if member is None or not member.public_key:
                return StateReply(state="unknown")
            content = state_content(ask.site, ask.at)
            if not is_signed_by_site(member.public_key, content, ask.signature):
                return StateReply(state="unknown")
            if age > _FRESH_SECONDS:
                raise EnrolmentRefused(
                    f"the site's clock is {age:.0f} s off; set it (e.g. with systemd-timesyncd)"
                )
        return StateReply(state=member.state, fingerprint=fingerprint(member.public_key))


def _json(value: BaseModel) -> bytes:
    return value.model_dump_json().encode()
