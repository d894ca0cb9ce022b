"""The site's thin layer over Flower: the ClientApp. The only module of `edge_client` with flwr.

Which folder is this site's comes from the node's configuration (``site-folder``, as a deployed
SuperNode or the in-process engine gives it) or, under Flower's Ray backend, which gives nothing
but a partition number, from the environment variable ``FEDQANA_SITES``.
"""

import logging
import os
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from common.errors import SiteRefused
from common.flower_records import pack_answer, unpack_instruction
from common.messages import Answer
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
@app.query("deploy")
@app.query("share")
@app.query("final")
@app.train()
@app.evaluate()
def serve(message: Message, context: Context) -> Message:
    """Answer one message; errors become codes, so that no text of the site leaves it."""
    from edge_client.site_tasks import answer

    try:
        said = answer(unpack_instruction(message), site_folder(context))
    except SiteRefused as error:
        said = Answer(error=error.code)
    except Exception:  # Flower would send its text, which may hold a path, to the coordinator
        log.exception("%s failed", message.metadata.message_type)
        said = Answer(error="internal-error")
    return Message(pack_answer(said), reply_to=message)
