"""A run small enough for tests, and everything that must not depend on how it came about."""

import hashlib
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from common.qana.config import QanaConfig
from server.checkpoint import CheckpointFile, RunState
from server.history.engine import default_url
from server.history.records import RunRecord
from server.history.store import open_history
from server.plan import RunPlan, make_plan
from server.run_folder import RunFolder
from simulation.run import create_run, execute, known_classes
from simulation.sites import DataSettings, write_sites

TINY = QanaConfig(input_size=32, stem=8, widths=(8, 16), transform=16, spikes=32)
"""The one shape of all tests: a quantized model of a shape costs a process seconds, once."""

DATA: dict[str, Any] = {
    "data": "synthetic:80",
    "sites": "iid:4",
    "seed": 0,
    "arrivals": 0.2,
    "size": TINY.input_size,
}
PLAN: dict[str, Any] = {
    **{"config": TINY, "batch": 16, "seed": 0, "float_rounds": 1, "qat_rounds": 1},
    **{"distillation": 0.0, "qat_learning_rate": 1e-4, "average": 1.0},
    "class_offsets": False,
    "fine_tuning_epochs": 0,
}


def tiny_plan(**settings: Any) -> RunPlan:
    """A plan of one float and one quantized round with all seven classes, unless told."""
    known = {"run": "tiny", "classes": known_classes(tiny_data())}
    return make_plan(**{**PLAN, **known, **settings})


def tiny_data(**settings: Any) -> DataSettings:
    """80 lesions over four sites, a fifth of the training lesions arriving between rounds."""
    return DataSettings(**{**DATA, "rounds": 2, **settings})


def create_tiny(out: Path, data: dict[str, Any] | None = None, **settings: Any) -> Path:
    """A new run's folder below ``out``; the history is ``out/history.db``."""
    plan = tiny_plan(**settings)
    made = tiny_data(**{"rounds": plan.rounds, "seed": plan.seed, **(data or {})})
    plan = plan.model_copy(update={"classes": known_classes(made), "crop": made.crop})
    create_run(out / plan.run, plan, made)
    shutil.copytree(_prepared_sites(made.model_dump_json()), out / plan.run / "sites")
    return out / plan.run


@lru_cache(maxsize=8)
def _prepared_sites(settings: str) -> Path:
    """Sites' folders that runs copy: drawing the images costs seconds."""
    temporary = tempfile.TemporaryDirectory()
    _kept.append(temporary)  # until the process ends
    folder = Path(temporary.name)
    write_sites(DataSettings.model_validate_json(settings), folder, None)
    return folder


_kept: list["tempfile.TemporaryDirectory[str]"] = []


def run_tiny(out: Path, data: dict[str, Any] | None = None, **settings: Any) -> Path:
    """Create a run and execute it within this process; returns its folder."""
    folder = create_tiny(out, data, **settings)
    execute(folder, "in-process", out / "cache", default_url(out))
    return folder


def record_of(folder: Path) -> RunRecord:
    """What the history knows of the run in ``folder``."""
    with open_history(default_url(folder.parent)) as history:
        return history.load_record(folder.name)


def state_of(folder: Path) -> RunState | None:
    """The checkpoint of the run in ``folder``."""
    return CheckpointFile(RunFolder(folder).checkpoint).load()


def position_of(folder: Path) -> str:
    """Which step a run is in or was killed in, as its checkpoint tells.

    From a copy: reading a checkpoint clears away what a killed process left half-written beside
    it, which a run that is still going may be about to rename.
    """
    checkpoint = RunFolder(folder).checkpoint
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "checkpoint"
        if checkpoint.exists():
            shutil.copyfile(checkpoint, copy)
        state = CheckpointFile(copy).load()
    return f"{state.round}/{state.step}" if state else "1/train"


def fingerprint(folder: Path) -> dict[str, Any]:
    """All of a run that must be equal, bit for bit, whatever happened on the way.

    Checkpointed weights, files of bundles and of the sites' chips, and what the history says
    but for times (and for the size of replies, which say how long a site took).
    """
    found: dict[str, Any] = {}
    state = state_of(folder)
    assert state is not None
    for group in ("floating", "quantized", "strategy", "mean_network"):
        for name, array in getattr(state, group).items():
            found[f"checkpoint {group} {name}"] = _sha256(array.tobytes())
    for name in (
        "round",
        "step",
        "classes",
        "ranges",
        "sites",
        "metrics",
        "aggregated",
        "counted",
        "class_prior",
        "class_counts",
        "mean_rounds",
    ):
        found[f"checkpoint {name}"] = getattr(state, name)
    for file in sorted([*folder.glob("versions/**/*"), *folder.glob("sites/*/state/**/*")]):
        if file.is_file():
            found[f"file {file.relative_to(folder)}"] = _sha256(file.read_bytes())
    return {**found, **history_fingerprint(record_of(folder))}


def history_fingerprint(record: RunRecord) -> dict[str, Any]:
    """What the history says of a run, without times."""
    found: dict[str, Any] = {
        "history run": (record.run.state, record.run.classes, record.run.reason),
        "history sites": [(s.name, s.accepted, s.reason, s.n_train) for s in record.sites],
        "history rounds": [(r.number, r.phase, r.sites_aggregated) for r in record.rounds],
        "history versions": [(v.version, v.card_sha256) for v in record.versions],
    }
    for r in record.site_results:
        found[f"result {r.round} {r.step} {r.site}"] = (r.accepted, r.reason, _timeless(r.result))
    for u in record.edge_updates:
        found[f"edge {u.round} {u.site}"] = (
            (u.version, u.switched, u.reason, u.cases_learned),
            _timeless(u.result),
        )
    return found


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Names of what differs between two fingerprints."""
    return sorted(n for n in first.keys() | second.keys() if first.get(n) != second.get(n))


def _timeless(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name != "seconds"}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
