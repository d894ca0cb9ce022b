"""Time of a deployed round against the simulated one, by step; run by hand.

    python -m tests.deployment.rounds_compared [--rounds N] [--network small|default] [--lesions N]

Three sites on this machine, the same cases, plan and seed three times: simulated in one process,
deployed, and deployed with Flower's own client, which starts a process for every message, in the
place of FedQANA's resident one. Prints mean seconds a round and step without the first round, in
which steps are compiled, and what of it the slowest site said it worked.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from common.qana.config import DEMO_CONFIG, QanaConfig
from server.history.engine import default_url
from server.history.records import RunRecord
from server.history.store import open_history
from server.plan import make_plan
from server.run_folder import RunFolder, StoredPlan
from tests.deployment.hospitals import Hospitals, fedqana, hospitals

SITES = ("north", "south", "west")
STEPS = ("train", "evaluate", "bundle", "deploy", "share")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lesions", type=int, default=60)
    parser.add_argument("--network", choices=("small", "default"), default="small")
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="fedqana-compared-"))
    data = {}
    for seed, site in enumerate(SITES):
        data[site] = root / f"data-{site}"
        fedqana(
            "data", "make", str(data[site]), "--lesions", str(options.lesions), "--seed", str(seed)
        )
    found = {}
    for name in ("deployed", "Flower's own client"):
        place = root / name.replace("'", "").replace(" ", "-")
        place.mkdir()
        with hospitals(place) as made:
            found[name] = deployed(made, data, options, own_client=name != "deployed")
            if name == "deployed":
                found["simulated"] = simulated(made, root, options)
    shown = ("simulated", "deployed", "Flower's own client")
    print(f"{'step':<10}" + "".join(f"{name:>24}" for name in shown))
    for step in STEPS:
        cells = [f"{whole(found[n], step):.1f} ({slowest(found[n], step):.1f})" for n in shown]
        print(f"{step:<10}" + "".join(f"{cell:>24}" for cell in cells))
    totals = [sum(whole(found[n], step) for step in STEPS) for n in shown]
    print(f"{'round':<10}" + "".join(f"{total:>24.1f}" for total in totals))
    up = [r.bytes_up for r in found["deployed"].site_results if r.step == "train"]
    print(f"bytes up in a training step and site: {np.mean(up):.0f}")
    print(json.dumps({n: found[n].run.run_id for n in shown}))
    shutil.rmtree(root)


def deployed(
    made: Hospitals, data: dict[str, Path], options: argparse.Namespace, own_client: bool
) -> RunRecord:
    """A run over real processes."""
    made.start_server()
    for site in SITES:
        made.join(site, data[site])
        if own_client:
            made.clients[site].command = [
                sys.executable,
                "-m",
                "tests.deployment.flowers_own_client",
                str(made.home(site)),
            ]
        made.clients[site].start()
    made.approve(*SITES)
    made.wait_online(*SITES)
    made.coordinator(
        *("rounds", "start", "--run", "compared", "--batch", "16"),
        *("--network", options.network),
        *("--rounds", str(options.rounds), "--qat-rounds", "0"),
    )
    made.wait_finished("compared", 3600)
    with made.history() as history:
        return history.load_record("compared")


def simulated(made: Hospitals, root: Path, options: argparse.Namespace) -> RunRecord:
    """The same run with the same cases in this process."""
    from edge_client.flower import app as client_app
    from edge_client.site import SiteFolder
    from server.flower import app as server_app
    from simulation.in_process import run_in_process

    folder = root / "simulated"
    sites = []
    for site in SITES:
        copy = SiteFolder(folder / "sites" / site)
        copy.write(SiteFolder(made.home(site)).read())
        sites.append(copy.path)
    plan = make_plan(
        run="simulated",
        classes=SiteFolder(sites[0]).read().classes.codes,
        config=QanaConfig() if options.network == "default" else DEMO_CONFIG,
        float_rounds=options.rounds,
        qat_rounds=0,
        batch=16,
        expected_sites=len(SITES),
        seed=0,
    )
    RunFolder(folder).create(StoredPlan(plan=plan, data="compared"))
    run_in_process(server_app, client_app, folder, default_url(root), sites)
    with open_history(default_url(root)) as history:
        return history.load_record("simulated")


def whole(record: RunRecord, step: str) -> float:
    """Mean wall seconds of a step, the first round left out."""
    return float(np.mean([r.seconds.get(step, 0.0) for r in record.rounds[1:]]))


def slowest(record: RunRecord, step: str) -> float:
    """Mean over the rounds of what the slowest site said it worked."""
    rounds = [r.number for r in record.rounds[1:]]
    worked = [
        max((s.seconds for s in record.site_results if (s.round, s.step) == (n, step)), default=0.0)
        for n in rounds
    ]
    return float(np.mean(worked))


if __name__ == "__main__":
    main()
