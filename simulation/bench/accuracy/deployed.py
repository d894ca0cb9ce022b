"""Records of a simulated run as it is deployed: its program, and what its sites answer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from common.akida_runtime import Program, available_device
from common.bundle import PROGRAM, load_bundle
from common.data.cases import Cases
from common.errors import SettingsError
from common.score_counts import widened
from common.test_time_views import over_symmetries
from edge_client.service import EdgeClient
from edge_client.site import SiteData, SiteFolder, relabelled
from server.checkpoint import DONE, CheckpointFile
from server.plan import RunPlan
from server.run_folder import RunFolder
from simulation.bench.accuracy.judging import Scores, judge
from simulation.bench.accuracy.records import found_record, record_file, write_record
from simulation.bench.accuracy.seed_data import SeedCases, data_name
from simulation.bench.records import Record, size_of, software_versions
from simulation.run import stored_settings

DEPLOYED_ROWS = (
    *("program", "program-flips"),
    *("site-program", "site-program-flips"),
    *("answers", "answers-flips"),
)
"""The run's last program, the one that serves at each site (fine-tuned there or not), and that one
with the site's own chip head; each by one view and by eight."""

Part = Literal["test", "validation"]

_NO_SETTINGS = {"run", "seed", "quorum", "deadline", "expected_sites", "gather", "deploy_every"}
"""Of a plan: they name the run, or decide nothing about its last version."""


@dataclass(frozen=True)
class _Answers:
    """All rows' scores of one part of a site's cases.

    ``own_row`` is the one that the site answers by, ``probabilities`` are those it gives with it.
    """

    cases: Cases
    scores: dict[str, Scores]
    own_row: str
    probabilities: NDArray[np.float64]


def make_deployed_records(folder: Path, out: Path, part: Part = "test") -> list[Record]:
    """The records of `DEPLOYED_ROWS`: a simulated run's last version and what its sites serve.

    Parameters
    ----------
    folder : Path
        The run's.
    out : Path
        Where records are kept; what is there is not made again.
    part : "test" or "validation"
        Which of the sites' lesions are judged. A choice between rows needs validation lesions;
        these have no ECE with temperature, as they fit it.

    Raises
    ------
    SettingsError
        The run is not finished; a record of another run of this seed is there.
    ModelNotFound
        No program is in service at a site.
    StateDamaged
        The run's settings cannot be read.
    """
    stored = RunFolder(folder).stored_plan()
    plan = stored.plan
    state = CheckpointFile(RunFolder(folder).checkpoint).load()
    if state is None or state.step != DONE:
        raise SettingsError(
            f"run {plan.run} is not finished, so its last version does not serve yet; go on with "
            f"'fedqana simulate --resume {plan.run}'"
        )
    data = stored_settings(folder)
    settings = {
        **plan.model_dump(mode="json", exclude=_NO_SETTINGS),
        "sites": data.model_dump(mode="json", exclude={"seed", "data", "saliency_weights"}),
        "data": data_name(data.data),
        "part": part,
    }
    if there := _found(out, plan, settings):
        return there
    homes = [SiteFolder(path) for path in sorted((folder / "sites").iterdir()) if path.is_dir()]
    clients = [EdgeClient(home.state, read_only=True) for home in homes]
    known = [code for client in clients for code in client.classes]
    last = load_bundle(RunFolder(folder).version(plan.rounds))
    codes = tuple(dict.fromkeys((*last.card.classes, *known)))
    sites = [home.read() for home in homes]
    pairs = list(zip(clients, sites, strict=True))
    program = Program.from_bytes(last.files[PROGRAM])
    judged = [_answers(program, client, site, part, codes) for client, site in pairs]
    held = None
    if part == "test":
        held = [_answers(program, client, site, "validation", codes) for client, site in pairs]
    cases = _cases(codes, sites, judged, held)
    return [_record(row, plan, settings, cases, judged, held, out) for row in DEPLOYED_ROWS]


def _found(out: Path, plan: RunPlan, settings: dict[str, Any]) -> list[Record]:
    """The run's records where all are there; SettingsError where one is of another run."""
    there = [found_record(out, row, plan.seed, settings) for row in DEPLOYED_ROWS]
    for row, record in zip(DEPLOYED_ROWS, there, strict=True):
        if record is not None and record.get("run") != plan.run:
            raise SettingsError(
                f"{record_file(out, row, plan.seed)} is of run {record.get('run')}, not of "
                f"{plan.run}, which has the same seed and settings; give another --out"
            )
    return [record for record in there if record] if all(there) else []


def _answers(
    program: Program, client: EdgeClient, site: SiteData, part: Part, codes: tuple[str, ...]
) -> _Answers:
    cases = relabelled(getattr(site, part), site.classes, codes)
    images = cases.images

    def by_run(views: NDArray[np.uint8]) -> Scores:
        return widened(program.predict_potentials(views), len(codes))

    def by_site(views: NDArray[np.uint8]) -> Scores:
        return widened(client.classify_global(views), len(codes))

    scores = {
        "program": by_run(images),
        "program-flips": over_symmetries(by_run)(images),
        "site-program": by_site(images),
        "site-program-flips": over_symmetries(by_site)(images),
        "answers": client.decide(images, codes, False),
        "answers-flips": client.decide(images, codes, True),
    }
    own_row = "answers-flips" if client.status()["all_symmetries"] else "answers"
    own = client.calibration().probabilities(scores[own_row], codes)
    return _Answers(cases, scores, own_row, own)


def _cases(
    codes: tuple[str, ...],
    sites: list[SiteData],
    judged: list[_Answers],
    held: list[_Answers] | None,
) -> SeedCases:
    train = Cases.concatenate([relabelled(site.train, site.classes, codes) for site in sites])
    empty = train.subset(np.zeros(0, np.int64))
    names = (site.name for site in sites)
    return SeedCases(
        codes,
        train,
        train,
        Cases.concatenate([found.cases for found in held]) if held else empty,
        Cases.concatenate([found.cases for found in judged]),
        tuple(n for n, found in zip(names, judged, strict=True) for _ in range(len(found.cases))),
    )


def _record(
    row: str,
    plan: RunPlan,
    settings: dict[str, Any],
    cases: SeedCases,
    judged: list[_Answers],
    held: list[_Answers] | None,
    out: Path,
) -> Record:
    scores = np.concatenate([found.scores[row] for found in judged])
    held_scores = np.concatenate([found.scores[row] for found in held]) if held else None
    prior_strength = plan.prior_strength if plan.balance == "prior" else 0.0
    own = None  # the sites' own probabilities, where the row is what all of them answer by
    if held and all(found.own_row == row for found in judged):
        own = np.concatenate([found.probabilities for found in judged])
    record: Record = {
        "row": row,
        "run": plan.run,
        "seed": plan.seed,
        "settings": settings,
        "command": f"fedqana bench accuracy deployed {plan.run}"
        + ("" if held else " --on validation"),
        "versions": software_versions("cnn2snn", "quantizeml", "flwr"),
        "backend": available_device().name,
        "train": size_of(cases.train.lesion_ids),
        "test": {**size_of(cases.test.lesion_ids), "sha256": cases.test_hash()},
        "overlap": cases.overlap(),
        "result": judge(scores, held_scores, cases, prior_strength, own),
    }
    write_record(out, record)
    return record
