"""A simulated run from its settings to its report."""

import logging
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from common.classes import ClassMap
from common.errors import FedqanaError, RunMismatch, RunNotFound, StateDamaged, StorageFull
from common.files import write_atomically, writing_to
from server.plan import RunPlan
from server.progress import Progress, tell
from server.run_folder import RunFolder, StoredPlan
from simulation.sites import DataSettings, write_sites

log = logging.getLogger("fedqana.run")

Engine = Literal["in-process", "ray"]

_SETTINGS = "data.json"
_TOLD_EACH = 20


def known_classes(settings: DataSettings) -> tuple[str, ...]:
    """The classes that a run starts with."""
    if settings.new_class is None:
        return settings.classes
    return ClassMap(settings.classes).without(settings.new_class.code).codes


def create_run(folder: Path, plan: RunPlan, settings: DataSettings, initial: bytes = b"") -> None:
    """Write a new run's plan and data settings, and the file of its initial weights.

    Raises RunMismatch where a run is there already, or anything else: a new run's folder is its
    own, and is removed again if the run cannot begin.
    """
    if (folder / _SETTINGS).exists():
        raise RunMismatch(
            f"{folder} holds a run already; resume it with --resume {plan.run} or choose "
            "another --run name"
        )
    with writing_to(folder):
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise RunMismatch(
                f"{folder} is there already and is no run; choose another --run name or --out"
            )
    RunFolder(folder).create(StoredPlan(plan=plan, data=settings.name))
    RunFolder(folder).keep_initial(initial)
    write_atomically(folder / _SETTINGS, settings.model_dump_json(indent=2).encode())


def find_run(out: Path, name: str) -> Path:
    """The folder of a run by name, unique prefix, or "latest"; RunNotFound says which there are."""
    settings = sorted(out.glob(f"*/{_SETTINGS}"), key=lambda p: (p.stat().st_mtime, p.parent.name))
    found = [p.parent.name for p in settings]
    matching = [run for run in found if run == name] or [r for r in found if r.startswith(name)]
    if name == "latest" and found:
        matching = found[-1:]
    if len(matching) != 1:
        known = ", ".join(found) or "none"
        raise RunNotFound(f"no run {name!r} in {out}; runs there: {known}")
    return out / matching[0]


def stored_settings(folder: Path) -> DataSettings:
    """A run's data settings; StateDamaged where they are not readable."""
    try:
        return DataSettings.model_validate_json((folder / _SETTINGS).read_bytes())
    except (OSError, ValidationError) as error:
        raise StateDamaged(
            f"{folder / _SETTINGS} is not readable; restore it or start a new run"
        ) from error


def execute(
    folder: Path, engine: Engine, cache: Path, database: str, actors: int | None = None
) -> None:
    """Run or resume the run in ``folder`` to its end with the deployed apps.

    ``actors`` is how many processes the Ray engine serves sites with, by default one for each core.
    """
    settings = stored_settings(folder)

    def found(done: int, total: int) -> None:
        if done % _TOLD_EACH == 0:
            message = f"lesions found in {done} of {total} images"
            tell(Progress(folder.name, 0, 0, "", "data", message, done=False))

    sites = write_sites(settings, folder / "sites", cache, found)
    from edge_client.flower import app as client_app

    if engine == "ray":
        from simulation.ray_engine import run_on_ray

        run_on_ray(client_app, folder, database, folder / "sites", len(sites), actors)
    else:
        from server.flower import app as server_app
        from simulation.in_process import run_in_process

        run_in_process(server_app, client_app, folder, database, sites)


def write_run_report(folder: Path, database: str, run: str) -> Path:
    """Write the run's HTML report; raises StorageFull, and then the run itself is safe."""
    from server.history.store import open_history
    from server.report.build import write_report
    from simulation.contact_sheets import write_contact_sheets

    output = folder / "report.html"
    with open_history(database, create=False) as history:
        record = history.load_record(run)
    try:
        write_contact_sheets(folder)
    except FedqanaError as error:  # the report can do without
        log.warning("no contact sheets: %s", error)
    try:
        write_report(record, output)
    except StorageFull as error:
        raise StorageFull(
            f"run {run} is {record.run.state}, but its report could not be written: {error}; "
            f"write it with 'fedqana runs report {run}'"
        ) from error
    return output
