"""`fedqana bench strategies`: accuracy per byte and per local epoch, and the tables of it."""

import json
from pathlib import Path
from typing import Any

import click

from common.classes import ClassMap
from common.commands.options import classes_option
from server.commands.options import json_option
from server.commands.plan_options import initial_option
from simulation.bench.strategies.rows import BASELINE, COMPRESSIONS, STRATEGIES, Row


@click.group()
def strategies() -> None:
    """Compare strategies over layouts of sites: accuracy per byte sent and per local epoch.

    Each row is one simulated run by the deployed programs, deployed at the end of each phase
    only. It becomes a record, a small JSON file of settings and numbers. Strategies of one layout
    and seed have the same lesions at the same sites.
    """


@strategies.command()
@click.option(
    "--data",
    required=True,
    help="Folder of labelled images, or synthetic:N for N made-up lesions.",
)
@click.option(
    "--sites", "layouts", multiple=True, default=("source",), show_default=True,
    help="How lesions become sites: source, iid:N or dirichlet:N:ALPHA; once for each layout.",
)  # fmt: skip
@click.option(
    "--strategy", "names", multiple=True, default=(BASELINE,), show_default=True,
    type=click.Choice(STRATEGIES), help="How updates are combined; once for each.",
)  # fmt: skip
@click.option(
    "--seed", "seeds", type=click.IntRange(0, 2**32 - 1), multiple=True, default=(0,),
    show_default=True, help="Of split, weights and training; once for each.",
)  # fmt: skip
@click.option(
    "--rounds", "float_rounds", type=click.IntRange(1), default=24, show_default=True,
    help="Float rounds.",
)  # fmt: skip
@click.option(
    "--qat-rounds", type=click.IntRange(0), default=6, show_default=True,
    help="Quantization-aware rounds after them.",
)  # fmt: skip
@click.option(
    "--local-epochs", type=click.IntRange(1), default=1, show_default=True,
    help="Epochs per site and round.",
)  # fmt: skip
@click.option(
    "--batch", type=click.IntRange(2), default=64, show_default=True,
    help="Cases per training step.",
)  # fmt: skip
@click.option(
    "--learning-rate", type=click.FloatRange(0, min_open=True), default=1e-3, show_default=True,
    help="Of the sites' optimizer, float phase.",
)  # fmt: skip
@click.option(
    "--qat-learning-rate", type=click.FloatRange(0, min_open=True), default=3e-4,
    show_default=True, help="Of the sites' optimizer, quantization-aware phase.",
)  # fmt: skip
@click.option(
    "--distillation", type=click.FloatRange(0, 1), default=1.0, show_default=True,
    help="Share of the float network's answers in the targets of quantization-aware rounds.",
)  # fmt: skip
@click.option(
    "--site-weights", type=click.Choice(["cases", "classes"]), default="cases",
    show_default=True, help="What a site's update counts by; robust strategies weigh all alike.",
)  # fmt: skip
@click.option(
    "--average", type=click.FloatRange(0, 1), default=0.25, show_default=True,
    help="Share of each phase's rounds whose networks' mean the phase ends with.",
)  # fmt: skip
@click.option(
    "--class-offsets/--no-class-offsets", default=True, show_default=True,
    help="Whether each phase ends with offsets by which the network answers all classes alike.",
)  # fmt: skip
@click.option(
    "--compression", type=click.Choice(COMPRESSIONS), default="none", show_default=True,
    help="How a site's update travels.",
)  # fmt: skip
@click.option(
    "--server-learning-rate", type=click.FloatRange(0, min_open=True), default=0.01,
    show_default=True, help="FedAdam's and FedYogi's eta.",
)  # fmt: skip
@click.option(
    "--proximal", type=click.FloatRange(0), default=0.01, show_default=True, help="FedProx's mu."
)
@click.option(
    "--network", type=click.Choice(["default", "small"]), default="default", show_default=True,
    help="The default network of runs, without QANA's elements, or a small one with all of them.",
)  # fmt: skip
@initial_option("pretrained")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("fedqana-strategies"),
    show_default=True, help="Folder of the records; what is there is not made again.",
)  # fmt: skip
@click.option("--keep-runs", is_flag=True, help="Leave the runs' own folders in place.")
@classes_option
@json_option
def run(
    data: str, layouts: tuple[str, ...], names: tuple[str, ...], seeds: tuple[int, ...],
    network: str, initial: str, out: Path, keep_runs: bool, classes: ClassMap, as_json: bool,
    **plan: Any,
) -> None:  # fmt: skip
    """Make the record of every combination of --sites, --strategy and --seed.

    A run that was stopped goes on where it was.
    """
    from common.qana.config import DEMO_CONFIG, QanaConfig
    from simulation.bench.strategies.making import Options, make_records, record_file
    from simulation.console import console_progress

    rows = [
        Row(layout, name, seed)
        for seed in dict.fromkeys(seeds)
        for layout in dict.fromkeys(layouts)
        for name in dict.fromkeys(names)
    ]
    options = Options(
        data, out, plan, classes, DEMO_CONFIG if network == "small" else QanaConfig(), initial,
        keep_runs, lambda: console_progress(quiet=as_json), lambda line: click.echo(line, err=True),
    )  # fmt: skip
    records = make_records(rows, options)
    if as_json:
        click.echo(json.dumps({"records": records}, indent=2))
        return
    for row, record in zip(rows, records, strict=True):
        found = record["test"]["akida"]["balanced_accuracy"]["value"]
        shown = "too few cases" if found is None else f"{found:.3f}"
        click.echo(
            f"{row.shown}: balanced accuracy of the Akida program {shown} on test lesions, "
            f"{record['totals']['bytes_up'] / 1e6:.1f} MB from the sites "
            f"({record_file(out, row)})"
        )


@strategies.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--figure", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Draw validation balanced accuracy over megabytes sent into this SVG file too.",
)  # fmt: skip
@json_option
def table(folder: Path, figure: Path | None, as_json: bool) -> None:
    """Print the tables of all records in FOLDER, as Markdown."""
    from simulation.bench.strategies.making import all_records
    from simulation.bench.strategies.table import markdown, summarized

    rows = summarized(all_records(folder))
    if figure is not None:
        from common.files import write_atomically
        from server.report.figures import svg
        from simulation.bench.strategies.figure import accuracy_over_bytes

        write_atomically(figure, svg(accuracy_over_bytes(rows)))
    click.echo(json.dumps({"rows": rows}, indent=2) if as_json else markdown(rows))
