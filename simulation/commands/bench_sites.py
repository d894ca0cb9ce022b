"""`fedqana bench sites`: what many sites cost on this machine, in seconds, memory and bytes."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from common.commands.options import classes_option
from server.commands.options import json_option
from server.commands.plan_options import plan_options, plan_settings
from simulation.commands.options import deploy_every_option

if TYPE_CHECKING:
    from common.classes import ClassMap
    from simulation.bench.site_costs import RoundCosts


@click.command()
@click.option(
    "--data",
    default="synthetic:2000",
    show_default=True,
    help="Folder of labelled images, or synthetic:N for N made-up lesions.",
)
@click.option(
    "--sites",
    default="iid:200",
    show_default=True,
    help="How lesions become sites: source, iid:N or dirichlet:N:ALPHA.",
)
@classes_option
@plan_options
@deploy_every_option
@click.option(
    "--arrivals",
    default=0.0,
    show_default=True,
    help="Share of the training lesions that arrive between rounds and are learned on the chip.",
)
@click.option(
    "--engine",
    default="in-process",
    show_default=True,
    type=click.Choice(["in-process", "ray"]),
    help="Sites one after the other in this process, or Flower's Ray backend.",
)
@click.option(
    "--actors",
    type=click.IntRange(1),
    help="Processes that serve sites with 'ray'.  [default: one for each core]",
)
@click.option("--run", "name", help="Name of the run.  [default: date and time]")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("fedqana-bench-sites"),
    show_default=True,
    help="Folder of the runs and of their history.",
)
@json_option
def sites(
    data: str,
    sites: str,
    classes: "ClassMap",
    deploy_every: int,
    arrivals: float,
    engine: str,
    actors: int | None,
    name: str | None,
    out: Path,
    as_json: bool,
    seed: int,
    **options: Any,
) -> None:
    """Run rounds over many sites and print seconds and memory of each, and bytes of a site.

    A line for each round: wall and processor seconds, and resident memory of the coordinator's
    process and of all processes together (what they share counted once), at the round's end and
    at most within it. The run is as any other: see it with 'fedqana runs show'.
    """
    from server.history.engine import default_url
    from server.new_run import check_run_name, new_run_name
    from server.plan import make_plan
    from simulation.bench.site_costs import measured
    from simulation.console import console_progress
    from simulation.run import create_run, known_classes
    from simulation.sites import make_data_settings, site_names

    out = out.resolve()
    chosen, initial = plan_settings({**options, "seed": seed, "deploy_every": deploy_every})
    made_of = make_data_settings(
        data=data,
        sites=sites,
        classes=classes.codes,
        seed=seed,
        rounds=chosen["float_rounds"] + chosen["qat_rounds"],
        arrivals=arrivals,
        size=chosen["config"].input_size,
    )
    run = name or new_run_name()
    check_run_name(run)
    plan = make_plan(
        run=run,
        classes=known_classes(made_of),
        expected_sites=len(site_names(made_of)),
        crop=made_of.crop,
        **chosen,
    )
    create_run(out / run, plan, made_of, initial)
    if not as_json:
        click.echo("\n".join(_HEADER))

    def told(costs: "RoundCosts") -> None:
        if not as_json:
            click.echo(_row(costs))

    with console_progress(quiet=as_json):
        found = measured(out / run, plan, engine, actors, default_url(out), out / "cache", told)
    click.echo(json.dumps(found, indent=2) if as_json else "\n".join(_summary(found)))


_HEADER = (
    "| round | wall s | processor s | coordinator MiB | all processes MiB | highest MiB "
    "| processes |",
    "| --- " * 7 + "|",
)


def _row(costs: "RoundCosts") -> str:
    """A line of the first table, as it stands in the documentation."""
    title = f"{costs.number} {costs.phase}" if costs.step == "round" else costs.step
    if costs.step == "round" and costs.deployed:
        title += ", deployed"
    return (
        f"| {title} | {costs.wall:.1f} | {costs.processor:.1f} | {costs.coordinator:.0f} "
        f"| {costs.tree:.0f} | {costs.highest:.0f} | {costs.processes} |"
    )


def _summary(found: dict[str, Any]) -> list[str]:
    """What follows it: the sites, and a table of a site's messages."""
    cases, totals = found["training_cases"], found["totals"]
    rows = [
        f"| {' '.join((row['phase'], row['step'])).strip()} | {row['down']:,} | {row['up']:,} "
        f"| {row['largest_up']:,} |"
        for row in found["bytes"]
    ]
    return [
        "",
        f"{found['sites']} sites with {cases['fewest']} to {cases['most']} training cases "
        f"({cases['all']} in all), engine {found['engine']}; {found['refused']} answers refused",
        "",
        "| one site's messages | down, bytes | up, bytes | up, largest |",
        "| --- " * 4 + "|",
        *rows,
        "",
        f"The whole run, a site: {totals['down'] / 1e6:.1f} MB down, "
        f"{totals['up'] / 1e6:.1f} MB up.",
        f"Akida ran on: {found['backend']}",
    ]
