"""Making the records of strategies: a simulated run for each row, read from its history."""

import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from common.classes import HAM10000_CLASSES, ClassMap
from common.data.cases import Cases
from common.errors import RunNotFound
from common.qana.config import DEMO_CONFIG, QanaConfig
from common.qana.initial import PRETRAINED, RANDOM, initial_content, start_id
from edge_client.site import SiteFolder
from server.history.engine import default_url
from server.history.store import open_history
from server.new_run import check_run_name
from server.plan import RunPlan, make_plan
from server.run_folder import RunFolder
from simulation.bench.accuracy.seed_data import data_name
from simulation.bench.records import (
    Record,
    check_same,
    hash_of_cases,
    read_record_of,
    records_in,
    software_versions,
    store_record,
)
from simulation.bench.strategies import reading
from simulation.bench.strategies.rows import Row
from simulation.run import create_run, execute, find_run, known_classes, stored_settings
from simulation.sites import DataSettings, make_data_settings, site_names

KEYS = (
    "sites", "strategy", "seed", "settings", "command", "versions", "backend", "cases",
    "test_sha256", "curve", "totals", "test",
)  # fmt: skip
"""What every record has."""

RUNS = "runs"
_NO_SETTINGS = {
    *("run", "seed", "strategy"),  # they name the row
    "deploy_every",  # follows from the rounds
    *("all_symmetries", "fine_tuning_epochs"),  # nothing is asked of sites' own programs
    *("quorum", "deadline", "expected_sites", "gather"),  # of waiting for sites: all are here
}
"""Of a plan."""

_OF_STRATEGIES = {
    "proximal": ("fedprox",),
    "server_learning_rate": ("fedadam", "fedyogi"),
    "site_weights": ("fedavg", "fedprox", "fedadam", "fedyogi"),
}
"""Settings that only some strategies use: for others they are no setting of the record."""


@dataclass(frozen=True)
class Options:
    """How records are made.

    Parameters
    ----------
    data : str
        As `DataSettings` takes it.
    out : Path
        Folder of the records.
    plan : dict
        Settings of `make_plan` by name, but for run, seed, strategy, classes and config.
    config : QanaConfig
        The network's shape.
    initial : str
        "random", "pretrained" or a file of weights that it starts from.
    keep_runs : bool
        Whether a run's folder stays after its record is written.
    watched : callable
        A context in which a run goes on, e.g. one that shows progress.
    tell : callable
        Gets a line for each row.
    """

    data: str
    out: Path
    plan: dict[str, Any] = field(default_factory=dict)
    classes: ClassMap = HAM10000_CLASSES
    config: QanaConfig = field(default_factory=QanaConfig)
    initial: str = RANDOM
    keep_runs: bool = False
    watched: Callable[[], AbstractContextManager[None]] = nullcontext
    tell: Callable[[str], None] = lambda line: None

    @cached_property
    def initial_content(self) -> bytes:
        """The file that runs start from, empty for random weights; raises as its reader."""
        return initial_content(self.initial, self.config)


@dataclass(frozen=True)
class _Wanted:
    """A row with everything checked; ``record`` is there where it was made before."""

    row: Row
    plan: RunPlan
    data: DataSettings
    settings: dict[str, Any]
    record: Record | None


def record_file(out: Path, row: Row) -> Path:
    """Where a record is."""
    return out / f"{row.stem}.json"


def all_records(out: Path) -> list[Record]:
    """Every record in a folder; SettingsError where there is none, or a file that is none."""
    return records_in(out, _read, "fedqana bench strategies run")


def make_records(rows: Sequence[Row], options: Options) -> list[Record]:
    """The records of all rows in order, from ``options.out`` where they were made before.

    Every row's settings are checked before the first run starts. A run that was stopped goes on.

    Raises
    ------
    SettingsError
        Settings that do not fit, or a record or a stopped run of other settings is there.
    DataError
        As `site_names` and `execute`.
    """
    records = []
    for wanted in [_checked(row, options) for row in rows]:
        if wanted.record is None:
            options.tell(f"{wanted.row.shown}: {wanted.plan.rounds} rounds")
            record = _made(wanted, options)
        else:
            options.tell(f"{wanted.row.shown}: found {record_file(options.out, wanted.row)}")
            record = wanted.record
        records.append(record)
    return records


def _read(file: Path) -> Record:
    return read_record_of(file, KEYS, "strategies")


def _checked(row: Row, options: Options) -> _Wanted:
    check_run_name(row.stem)
    rounds = options.plan.get("float_rounds", 0) + options.plan.get("qat_rounds", 0)
    data = make_data_settings(
        data=options.data,
        sites=row.sites,
        classes=options.classes.codes,
        seed=row.seed,
        rounds=rounds,
        arrivals=0.0,
        size=options.config.input_size,
    )
    plan = make_plan(
        run=row.stem,
        seed=row.seed,
        classes=known_classes(data),
        strategy=row.strategy,
        config=options.config,
        crop=data.crop,
        initial=start_id(options.initial_content),
        deploy_every=max(rounds, 1),  # the last round of each phase is deployed whatever it is
        all_symmetries="never",  # strategies differ in networks, not in how these are asked
        fine_tuning_epochs=0,  # nor in what sites make of them
        **options.plan,
    )
    settings = _settings(row, plan, data)
    file, record = record_file(options.out, row), None
    if file.exists():
        record = _read(file)
        check_same(record["settings"], settings, file)
    else:
        plan = plan.model_copy(update={"expected_sites": len(site_names(data))})
    return _Wanted(row, plan, data, settings, record)


def _settings(row: Row, plan: RunPlan, data: DataSettings) -> dict[str, Any]:
    """What two records of one layout and strategy must have in common to be averaged."""
    settings = plan.model_dump(mode="json", exclude=_NO_SETTINGS)
    for name, strategies in _OF_STRATEGIES.items():
        if row.strategy not in strategies:
            del settings[name]
    return {**settings, "data": data_name(data.data), "arrivals": data.arrivals, "crop": data.crop}


def _made(wanted: _Wanted, options: Options) -> Record:
    """Run or go on with the row's run, store its record, and remove the run."""
    row, out = wanted.row, options.out.resolve()
    work = out / RUNS / row.stem
    try:
        folder = find_run(work, row.stem)
        _check_stopped(folder, wanted)
    except RunNotFound:  # nothing, or what a command left that was stopped before its run began
        shutil.rmtree(work, ignore_errors=True)
        folder = work / row.stem
        create_run(folder, wanted.plan, wanted.data, options.initial_content)
    url = default_url(work)
    with options.watched():
        execute(folder, "in-process", out / "cache", url)
    with open_history(url, create=False) as history:
        run = history.load_record(row.stem)
    rounds = reading.curve(run, wanted.plan)
    sites = [SiteFolder(folder / "sites" / site.name).read() for site in run.sites]
    record: Record = {
        "sites": row.sites,
        "strategy": row.strategy,
        "seed": row.seed,
        "settings": wanted.settings,
        "command": _command(row, wanted.plan, options),
        "versions": software_versions("flwr"),
        "backend": reading.backend_of(run),
        "cases": {
            site.name: {
                "train": len(site.train),
                "validation": len(site.validation),
                "test": len(site.test),
            }
            for site in sites
        },
        "test_sha256": hash_of_cases(Cases.concatenate([site.test for site in sites])),
        "refused_answers": reading.refused(run),
        "curve": rounds,
        "totals": reading.totals(run, rounds),
        "test": reading.tested(run),
    }
    store_record(record_file(options.out, row), record)
    if not options.keep_runs:
        shutil.rmtree(work)
    return record


def _check_stopped(folder: Path, wanted: _Wanted) -> None:
    """SettingsError where the stopped run in ``folder`` has other settings."""
    plan = RunFolder(folder).stored_plan().plan
    check_same(_settings(wanted.row, plan, stored_settings(folder)), wanted.settings, folder)


def _command(row: Row, plan: RunPlan, options: Options) -> str:
    """What makes the record again, but for where the data and the records are."""
    text = (
        f"fedqana bench strategies run --data {data_name(options.data)} --sites {row.sites} "
        f"--strategy {row.strategy} --seed {row.seed} --rounds {plan.float_rounds} "
        f"--qat-rounds {plan.qat_rounds} --local-epochs {plan.local_epochs}"
    )
    for name in (
        *("batch", "learning_rate", "qat_learning_rate", "distillation"),
        *("compression", "server_learning_rate", "proximal", "site_weights", "average"),
    ):
        used = row.strategy in _OF_STRATEGIES.get(name, (row.strategy,))
        value = getattr(plan, name)
        if used and value != RunPlan.model_fields[name].default:
            shown = value if isinstance(value, str) else f"{value:g}"
            text += f" --{name.replace('_', '-')} {shown}"
    if not plan.class_offsets:
        text += " --no-class-offsets"
    if options.initial != PRETRAINED:
        known = options.initial == RANDOM
        text += f" --initial {options.initial if known else Path(options.initial).name}"
    if options.config == DEMO_CONFIG:
        text += " --network small"
    if options.classes != HAM10000_CLASSES:
        text += f" --classes {','.join(options.classes.codes)}"
    return text
