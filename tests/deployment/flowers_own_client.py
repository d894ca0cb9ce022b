"""A site with Flower's own SuperExec and ClientApp process in the place of the resident runner."""

import sys
from dataclasses import replace
from pathlib import Path

from common.json_log import log_to_stream
from common.supervisor import Supervisor
from edge_client.client_folder import ClientFolder
from edge_client.start import processes

if __name__ == "__main__":
    folder = ClientFolder(Path(sys.argv[1]))
    here = Path(sys.executable).parent
    specs = {spec.name: spec for spec in processes(folder)}
    command = [
        str(here / "flower-superexec"),
        "--insecure",
        *("--runtime-api-address", f"127.0.0.1:{folder.config().flower.port}"),
        *("--superexec-auth-secret-file", str(folder.runner_secret)),
    ]
    path = {"PATH": f"{here}:/usr/bin:/bin"}
    trainer = specs["trainer"]
    specs["trainer"] = replace(
        trainer, command=command, environment={**trainer.environment, **path}
    )
    (folder.path / "flower").mkdir(exist_ok=True)
    log_to_stream()
    Supervisor(list(specs.values())).run()
