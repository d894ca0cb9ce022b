"""`fedqana bench`: the measurements behind the documentation's tables, re-created step by step."""

import json
from pathlib import Path
from typing import Any

import click

from common.classes import ClassMap
from common.commands.options import classes_option

_out = click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("fedqana-bench"),
    show_default=True,
    help="Folder of the trained networks; what is there is not trained again.",
)
_data = click.option(
    "--data",
    required=True,
    help="Folder of labelled images, or synthetic:N for N made-up lesions.",
)
_seeds = click.option(
    "--seed",
    "seeds",
    type=click.IntRange(0, 2**32 - 1),
    multiple=True,
    default=(0, 1, 2),
    show_default=True,
    help="Seed of split, weights and training; give it once for each.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@click.group()
def bench() -> None:
    """Measure conversion and on-chip learning on pooled lesions, as the documentation reports it.

    Whole lesions are split 80/10/10; nothing is chosen on test lesions. Programs run on Akida's
    software backend unless this machine has a device.
    """


@bench.command()
@_data
@_out
@_seeds
@classes_option
@click.option("--hold-out", default="", metavar="CODE", help="Class that no training sees.")
@click.option("--float-epochs", type=click.IntRange(1), default=24, show_default=True)
@click.option("--qat-epochs", type=click.IntRange(0), default=10, show_default=True)
@click.option(
    "--network",
    type=click.Choice(["default", "small"]),
    default="default",
    show_default=True,
    help="The default network, or a small one for trying things out.",
)
def train(
    data: str,
    out: Path,
    seeds: tuple[int, ...],
    classes: ClassMap,
    hold_out: str,
    float_epochs: int,
    qat_epochs: int,
    network: str,
) -> None:
    """Train the networks that the other commands measure; hours for the default network."""
    from common.errors import SettingsError
    from common.qana.config import DEMO_CONFIG, QanaConfig
    from simulation.bench.networks import BenchSettings, bench_cases, train_network

    if hold_out and hold_out not in classes.codes:
        raise SettingsError(
            f"--hold-out {hold_out}: no such class; there are {', '.join(classes.codes)}"
        )
    config = QanaConfig() if network == "default" else DEMO_CONFIG
    for seed in seeds:
        cases = bench_cases(data, seed, classes, config.input_size, out / "cache")
        settings = BenchSettings(seed, hold_out, config, float_epochs, qat_epochs)
        bundle = train_network(settings, cases, classes, out, click.echo)
        fits = [name for name, report in bundle.card.fit.items() if report["fits"]]
        click.echo(f"{out / settings.name}: fits {' and '.join(fits) or 'no device'}")


_draws = click.option(
    "--draws",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Draws of exemplars and cases for each network.",
)
_held_out = click.option(
    "--hold-out",
    "held_out",
    multiple=True,
    default=("vasc", "df", "bcc", "akiec"),
    show_default=True,
    metavar="CODE",
    help="Held-out class; give it once for each.",
)


@bench.command()
@_data
@_out
@_seeds
@classes_option
@_json
def conversion(
    data: str, out: Path, seeds: tuple[int, ...], classes: ClassMap, as_json: bool
) -> None:
    """Print what is lost from float to Akida, and the events of each layer."""
    from simulation.bench import measurements

    rows = measurements.conversion(data, out, seeds, classes)
    counted = measurements.events(data, out, seeds, classes, n=100)
    if as_json:
        _print_json({"conversion": rows, "events": counted})
        return
    _print_table(
        ["seed", "lesions", "n", "float", "quantized", "Akida", "equal spikes", "predictions"],
        [
            [
                row["seed"],
                row["part"],
                row["n"],
                *(f"{row[head]:.3f}" for head in ("float", "quantized", "akida")),
                f"{row['equal_spikes']:,} of {row['spikes']:,}",
                f"{row['equal_predictions']:,} of {row['images']:,}",
            ]
            for row in rows
        ],
    )
    names = [name for name in counted[0] if name not in ("seed", "n")]
    _print_table(
        ["layer", *(f"events, seed {row['seed']}" for row in counted)],
        [[name, *(f"{row[name]:.0f}" for row in counted)] for name in names],
    )


@bench.command()
@_data
@_out
@_seeds
@classes_option
@_draws
@_json
def heads(
    data: str, out: Path, seeds: tuple[int, ...], classes: ClassMap, draws: int, as_json: bool
) -> None:
    """Compare what decides: the program's head, ways to teach the chip's, and both together."""
    from simulation.bench import measurements

    rows = measurements.heads(data, out, seeds, classes, draws)
    if as_json:
        _print_json({"heads": rows})
        return
    _print_table(
        ["head", "validation", "test"],
        [[row["head"], _spread(row["validation"]), _spread(row["test"])] for row in rows],
    )


@bench.command()
@_data
@_out
@_seeds
@classes_option
@_held_out
@_draws
@_json
def new_class(
    data: str,
    out: Path,
    seeds: tuple[int, ...],
    classes: ClassMap,
    held_out: tuple[str, ...],
    draws: int,
    as_json: bool,
) -> None:
    """Teach a held-out class with 1 to 20 cases at one site, and share it with another."""
    from simulation.bench import measurements

    counts = (1, 5, 10, 20)
    rows = measurements.new_class(data, out, seeds, classes, held_out, counts, draws)
    hostile = measurements.poisoning(data, out, seeds, classes, held_out, draws)
    if as_json:
        _print_json({"new_class": rows, "poisoned": hostile})
        return
    columns = [name for name in rows[0] if name not in ("class", "cases")]
    _print_table(
        ["class", "cases", *(name.replace("_", " ") for name in columns)],
        [[row["class"], row["cases"], *(_spread(row[name]) for name in columns)] for row in rows],
    )
    _print_table(
        ["hostile neurons", "change of balanced accuracy"],
        [[name, _spread(value)] for name, value in hostile.items()],
    )


@bench.command()
@_data
@_out
@_seeds
@classes_option
@_json
def wear(data: str, out: Path, seeds: tuple[int, ...], classes: ClassMap, as_json: bool) -> None:
    """Learn a thousand cases one by one and see what becomes of the others."""
    from simulation.bench import measurements

    rows = measurements.wearing(data, out, seeds, classes)
    if as_json:
        _print_json({"wear": rows})
        return
    _print_table(
        ["rule", "cases", "balanced accuracy, test"],
        [[row["rule"], row["cases"], _spread(row["test"])] for row in rows],
    )


def _spread(value: dict[str, float]) -> str:
    return f"{value['mean']:.3f} ± {value['sd']:.3f}"


def _print_json(result: dict[str, Any]) -> None:
    from simulation.bench.measurements import backend

    click.echo(json.dumps({**result, "backend": backend()}, indent=2))


def _print_table(header: list[str], rows: list[list[Any]]) -> None:
    """A Markdown table, as it stands in the documentation."""
    from simulation.bench.measurements import backend

    lines = [header, ["---"] * len(header), *rows]
    click.echo("\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines))
    click.echo(f"\nAkida ran on: {backend()}\n")
