"""`fedqana simulate`: a whole federated run on this machine."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from common.commands.options import classes_option, saliency_weights_option
from server.commands.options import database_option, database_url, json_option, out_option
from server.commands.plan_options import plan_options, plan_settings
from simulation.commands.options import deploy_every_option

if TYPE_CHECKING:
    from common.classes import ClassMap


_CACHE = "cache"


@click.command()
@click.option(
    "--data",
    default="synthetic:400",
    show_default=True,
    help="A folder of labelled images (see docs/data.md) or synthetic:N for N made-up lesions.",
)
@classes_option
@click.option(
    "--sites",
    default="source",
    show_default=True,
    help="How lesions become sites: source, iid:N or dirichlet:N:ALPHA.",
)
@plan_options
@deploy_every_option
@click.option(
    "--arrivals",
    default=0.1,
    show_default=True,
    help="Share of the training lesions that arrive between rounds and are learned on the chip.",
)
@click.option(
    "--new-class",
    metavar="CODE@ROUND@SITE",
    help="A class that nobody knows at first; its cases arrive at SITE from ROUND on.",
)
@click.option(
    "--baseline",
    metavar="pooled|SITE",
    default="",
    help="Instead of federated training: all sites' data at one site, or SITE alone; both are "
    "judged on the test lesions of all sites.",
)
@click.option(
    "--keep-neurons",
    metavar="SITE",
    multiple=True,
    help="A site that keeps to itself what its chip learned of new classes; once for each.",
)
@click.option(
    "--crop",
    default="centre",
    show_default=True,
    type=click.Choice(["centre", "whole", "saliency", "grad-cam", "mask"]),
    help="What of each image the network sees: the centred square, the whole frame, where a "
    "frozen ImageNet network finds the lesion, or (research only) around its mask.",
)
@saliency_weights_option
@click.option(
    "--engine",
    default="in-process",
    show_default=True,
    type=click.Choice(["in-process", "ray"]),
    help="Sites one after the other in this process, or Flower's Ray backend for many sites.",
)
@click.option("--run", "name", help="Name of the run.  [default: date and time]")
@click.option("--resume", metavar="RUN", help="Go on with a run; its settings stay as they were.")
@out_option
@database_option
@json_option
def simulate(
    data: str,
    classes: "ClassMap",
    sites: str,
    network: str,
    deploy_every: int,
    arrivals: float,
    new_class: str | None,
    baseline: str,
    keep_neurons: tuple[str, ...],
    crop: str,
    saliency_weights: str,
    engine: str,
    name: str | None,
    resume: str | None,
    out: Path,
    database: str | None,
    as_json: bool,
    seed: int,
    **settings: Any,
) -> None:
    """Run federated QANA over simulated hospital sites.

    Float rounds, then quantization-aware rounds; after each an Akida program, deployed to every
    site, which learns its newly arrived cases on the (simulated) chip. Ends with a table and an
    HTML report.
    """
    from common.errors import DataError, SettingsError, StorageFull
    from simulation.run import execute, find_run, write_run_report

    out = out.resolve()  # so that the history names folders that are found from anywhere
    url = database_url(database, out)
    if resume is not None:
        _refuse_other_options()
        folder = find_run(out, resume)
    else:
        folder = _create(
            out,
            name,
            url,
            {
                "data": data,
                "sites": sites,
                "classes": classes.codes,
                "seed": seed,
                "arrivals": arrivals,
                "baseline": baseline,
                "keep_neurons": keep_neurons,
                "crop": crop,
                "saliency_weights": saliency_weights,
            },
            {**settings, "seed": seed, "deploy_every": deploy_every},
            network,
            new_class,
        )
    from simulation.console import console_progress, print_result

    try:
        with console_progress(quiet=as_json):
            execute(folder, engine, out / _CACHE, url)  # type: ignore[arg-type]
    except (DataError, SettingsError):
        if resume is None and not (folder / "sites" / "sites.json").exists():
            shutil.rmtree(folder)  # it never began: the name is free for another try
        raise
    except StorageFull as error:
        again = f"fedqana simulate --resume {folder.name} --out {out}"
        more = " and the same --database" if database else ""
        raise StorageFull(f"{error}; then go on with {again}{more}") from error
    report = write_run_report(folder, url, folder.name)
    if as_json:
        click.echo(json.dumps(_as_json(url, folder.name, report), indent=2))
    else:
        print_result(url, folder.name, report)


def _refuse_other_options() -> None:
    """A resumed run keeps its settings: name the options that were given all the same."""
    from common.errors import RunMismatch

    context = click.get_current_context()
    allowed = {"resume", "out", "database", "as_json", "engine"}
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name is not None
        and parameter.name not in allowed
        and context.get_parameter_source(parameter.name) == click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        raise RunMismatch(
            f"--resume goes on with the run's own settings; leave out {', '.join(sorted(given))} "
            "or start a new run"
        )


def _create(
    out: Path,
    name: str | None,
    url: str,
    data: dict[str, Any],
    settings: dict[str, Any],
    network: str,
    new_class: str | None,
) -> Path:
    """Check all settings, then write the new run's folder."""
    from common.errors import SettingsError
    from server.history.store import open_history
    from server.new_run import check_run_name, new_run_name
    from server.plan import make_plan
    from simulation.run import create_run, known_classes
    from simulation.sites import make_data_settings, site_names

    run = name or new_run_name()
    check_run_name(run)
    if run == _CACHE or run.startswith("history.db"):
        raise SettingsError(f"--run {run}: the output folder has its own {run}; use another name")
    chosen, initial = plan_settings({**settings, "network": network})
    rounds = settings["float_rounds"] + settings["qat_rounds"]
    data_settings = make_data_settings(
        **data,
        rounds=rounds,
        size=chosen["config"].input_size,
        new_class=_parse_new_class(new_class, rounds, data["classes"]),
    )
    plan = make_plan(
        run=run,
        classes=known_classes(data_settings),
        expected_sites=len(site_names(data_settings)),
        crop=data_settings.crop,
        **chosen,
    )
    open_history(url).close()  # refused before the sites' data are made, which takes minutes
    create_run(out / run, plan, data_settings, initial)
    return out / run


def _parse_new_class(
    text: str | None, rounds: int, codes: tuple[str, ...]
) -> dict[str, str | int] | None:
    from common.errors import SettingsError

    if text is None:
        return None
    code, _, rest = text.partition("@")
    number, _, site = rest.partition("@")
    if not (
        number.isascii()
        and number.isdecimal()
        and site
        and code in codes
        and 1 <= int(number) <= rounds
    ):
        raise SettingsError(
            f"--new-class {text}: give CODE@ROUND@SITE with a code of "
            f"{', '.join(codes)} and a round from 1 to {rounds}"
        )
    return {"code": code, "round": int(number), "site": site}


def _as_json(url: str, run: str, report: Path) -> dict[str, Any]:
    from server.history.store import open_history
    from simulation.console import headline

    with open_history(url, create=False) as history:
        record = history.load_record(run)
    return {
        "run": run,
        "state": record.run.state,
        "classes": list(record.run.classes),
        "rounds": len(record.rounds),
        "backend": record.edge_updates[-1].result["backend"] if record.edge_updates else None,
        "test": {head: summary.to_json() for head, summary in headline(record).items()},
        "report": str(report),
    }
