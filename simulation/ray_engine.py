"""Flower's own simulation engine, Ray, for many sites: one actor process per core."""

import logging
import os
from pathlib import Path

# First: Flower's Ray backend imports TensorFlow itself, here and in every actor, which inherits
# this process's environment.
import common.keras_setup  # noqa: F401

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from common.errors import FedqanaError
from edge_client.flower import SITES_VARIABLE
from server.flower import DATABASE_VARIABLE, RUN_VARIABLE
from server.flower import main as deployed_main


def run_on_ray(
    client_app: ClientApp, run_folder: Path, database: str, sites_folder: Path, n_sites: int
) -> None:
    """Run the deployed ServerApp and ClientApp on Flower's Ray backend.

    Actors find their site through the environment, which Ray passes on. An expected error of the
    ServerApp, which Flower runs in a thread, is raised here.
    """
    os.environ[RUN_VARIABLE] = str(run_folder)
    os.environ[DATABASE_VARIABLE] = database
    os.environ[SITES_VARIABLE] = str(sites_folder)
    logging.getLogger("flwr").setLevel(logging.ERROR)
    raised: list[FedqanaError] = []
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        try:
            deployed_main(grid, context)
        except FedqanaError as error:
            raised.append(error)

    run_simulation(
        server_app=server_app,
        client_app=client_app,
        num_supernodes=n_sites,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            # What actors print stays in Ray's own logs; how they fail is in their replies.
            "init_args": {"log_to_driver": False},
        },
    )
    if raised:
        raise raised[0]
