"""Flower's own simulation engine, Ray, for many sites: one actor process per core.

On this machine, or on a Ray cluster that runs already where ``RAY_ADDRESS`` is set
(docs/scaling.md).
"""

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

# First: Flower's Ray backend imports TensorFlow itself, here and in every actor, which inherits
# this process's environment.
import common.keras_setup  # noqa: F401

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from flwr.app import Context, UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from common.errors import FedqanaError, SettingsError
from edge_client.flower import SITES_VARIABLE
from server.flower import main as deployed

_ADDRESS = "RAY_ADDRESS"
_AT_ONCE, _EACH_ACTOR = 32, 4
"""Messages under way at the same time, at least and for each actor, so that none is idle: Flower's
backend compares all that are under way with all its nodes, ten times a second."""
_HANDED_ON = (
    SITES_VARIABLE,
    "PYTHONPATH",
    "TF_USE_LEGACY_KERAS",
    "TF_CPP_MIN_LOG_LEVEL",
    "TF_ENABLE_ONEDNN_OPTS",
    "CUDA_VISIBLE_DEVICES",
    "ASSERT_ENABLED",
)
"""What actors of a cluster, which inherit the environment of its nodes, must be given."""


def run_on_ray(
    client_app: ClientApp,
    run_folder: Path,
    database: str,
    sites_folder: Path,
    n_sites: int,
    actors: int | None = None,
) -> None:
    """Run the deployed ServerApp and ClientApp on Flower's Ray backend.

    ``actors`` is how many processes serve sites, by default one for each core; a cluster has as
    many as it has processors, so SettingsError there. Actors find their site through the
    environment, which Ray passes on. An expected error of the ServerApp, which Flower runs in a
    thread, is raised here.
    """
    os.environ[SITES_VARIABLE] = str(sites_folder)
    logging.getLogger("flwr").setLevel(logging.ERROR)
    # What actors print stays in Ray's own logs; how they fail is in their replies.
    init_args: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if os.environ.get(_ADDRESS):
        processors = _join_cluster(actors, init_args)
    else:  # never a cluster that happens to run here, whose actors would not find the sites
        processors = actors or os.cpu_count() or 1
        init_args |= {"address": "local"} | ({} if actors is None else {"num_cpus": actors})
    config: UserConfig = {
        "run-folder": str(run_folder),
        "database": database,
        "at-once": max(_AT_ONCE, _EACH_ACTOR * processors),
    }
    raised: list[FedqanaError] = []
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        try:
            deployed(grid, replace(context, run_config=config))
        except FedqanaError as error:
            raised.append(error)

    run_simulation(
        server_app=server_app,
        client_app=client_app,
        num_supernodes=n_sites,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": init_args,
        },
    )
    if raised:
        raise raised[0]


def _join_cluster(actors: int | None, init_args: dict[str, Any]) -> int:
    """Connect to the cluster at ``RAY_ADDRESS``: Flower's backend then takes that connection.

    Returns the number of the cluster's processors.
    """
    if actors is not None:
        raise SettingsError(
            "the number of actors is that of the cluster's processors; leave it out, or start the "
            "cluster's nodes with another 'ray start --num-cpus'"
        )
    known = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
    try:
        ray.init(address=os.environ[_ADDRESS], runtime_env={"env_vars": known}, **init_args)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise SettingsError(
            f"{_ADDRESS}={os.environ[_ADDRESS]}: no Ray cluster there ({error}); start one with "
            f"'ray start --head' or unset {_ADDRESS}"
        ) from error
    return int(ray.cluster_resources().get("CPU", 1))
