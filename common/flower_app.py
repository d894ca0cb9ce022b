"""The application bundle that Flower carries: one pyproject.toml that names installed code.

Flower ships an app's files to every node. Ours holds none: it says in which installed modules the
ServerApp and the ClientApp are, and is the same everywhere, so its hash is known beforehand.
"""

import hashlib
from functools import lru_cache

_PYPROJECT = b"""\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "fedqana"
version = "1.0.0"
description = "FedQANA as installed at the server and at every site"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "fedqana"

[tool.flwr.app.components]
serverapp = "server.flower:app"
clientapp = "edge_client.flower:app"

[tool.flwr.app.config]
run = ""
"""


@lru_cache(maxsize=1)
def app_bundle() -> tuple[bytes, str]:
    """The bundle and its SHA-256, the same on every machine with this Flower."""
    from flwr.cli.build import build_fab_from_files

    content, _ = build_fab_from_files({"pyproject.toml": _PYPROJECT})
    return content, hashlib.sha256(content).hexdigest()
