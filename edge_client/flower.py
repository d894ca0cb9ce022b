"""The site's thin layer over Flower: the ClientApp, and the one door through which answers leave.

Which folder is this site's comes from the node's configuration (``site-folder``, as a deployed
SuperNode or the in-process engine gives it) or, under Flower's Ray backend, which gives nothing
but a partition number, from the environment variable ``FEDQANA_SITES``.
"""

import logging
import os
from functools import lru_cache
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from common.errors import SettingsError, SiteRefused
from common.flower_records import (
    pack_answer,
    payload_bytes,
    payload_sha256,
    unpack_instruction,
)
from common.messages import Answer, Instruction
from edge_client.audit_log import AuditLog
from edge_client.outgoing import allowed, contents, storage_code
from edge_client.policy import Policy, apply_threads, is_governed, read_policy
from edge_client.site import SiteFolder

SITES_VARIABLE = "FEDQANA_SITES"

log = logging.getLogger("fedqana.site")

app = ClientApp()


def site_folder(context: Context) -> SiteFolder:
    """The folder of the site that this node is."""
    named = context.node_config.get("site-folder")
    if named is not None:
        return SiteFolder(Path(str(named)))
    sites = sorted(p for p in Path(os.environ[SITES_VARIABLE]).iterdir() if p.is_dir())
    return SiteFolder(sites[int(context.node_config["partition-id"])])


@app.query("handshake")
@app.query("balance")
@app.query("deploy")
@app.query("share")
@app.query("final")
@app.train()
@app.evaluate()
def serve(message: Message, context: Context) -> Message:
    """Answer one message; errors become codes, so that no text of the site leaves it."""
    kind = message.metadata.message_type.removeprefix("query.")
    try:
        folder = site_folder(context)
    except Exception:  # Flower would send its text, which may hold a path, to the coordinator
        log.exception("%s failed: the site's folder is not known", kind)
        return Message(pack_answer(Answer(error="internal-error")), reply_to=message)
    instruction: Instruction | None = None
    try:
        _limit_threads(read_policy(folder.path))
        from edge_client.site_tasks import answer

        instruction = unpack_instruction(message)
        said = answer(instruction, folder)
    except SettingsError as error:  # the policy; without it nothing is sent
        log.error("%s: %s", kind, error)
        said = Answer(error="declined")
    except SiteRefused as error:
        log.error("%s: %s", kind, error)
        said = Answer(error="bad-instruction")
    except Exception:
        log.exception("%s failed", kind)
        said = Answer(error="internal-error")
    return Message(_released(kind, instruction, said, folder.path), reply_to=message)


def _released(kind: str, instruction: Instruction | None, said: Answer, home: Path) -> RecordDict:
    """What is handed over to be sent: the answer as the policy allows, once it is written down.

    Where it is not allowed, or cannot be written into the audit log, a code is sent and nothing
    else. A site without a policy, as in a simulation, has no audit log.
    """
    try:
        said = allowed(instruction, said, read_policy(home), home)
    except (SettingsError, SiteRefused) as error:
        log.error("%s: the answer is not sent: %s", kind, error)
        said = Answer(error="declined")
    except Exception:
        log.exception("%s: the answer is not sent", kind)
        said = Answer(error="internal-error")
    content = pack_answer(said)
    ask = instruction.ask if instruction else None
    try:
        if not is_governed(home):
            return content
        AuditLog(home).append(
            kind=kind,
            run=str(getattr(ask, "run", "")),
            round_number=int(getattr(ask, "round", 0)),
            size=payload_bytes(content),
            sha256=payload_sha256(content),
            contents=tuple(sorted(contents(instruction, said))),
            code=said.error,
        )
    except Exception as error:  # whatever it is, what is not written down is not sent
        log.exception("%s: the answer is not sent, the audit log cannot be written", kind)
        return pack_answer(Answer(error=storage_code(error)))
    return content


@lru_cache(maxsize=8)
def _limit_threads(policy: Policy) -> None:
    if not apply_threads(policy):
        log.warning("max_threads of the policy takes effect when the client is started again")
