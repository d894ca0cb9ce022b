"""`fedqana bench`: the measurements behind the documentation's tables, re-created step by step."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from common.classes import ClassMap
from common.commands.options import classes_option
from simulation.commands.bench_accuracy import accuracy
from simulation.commands.bench_sites import sites
from simulation.commands.bench_strategies import strategies

if TYPE_CHECKING:
    from simulation.bench.measurements import Bench

SHAPE_NAMES = (  # of simulation.bench.networks, too slow to import here
    "bare",
    "whole",
    "late-strides",
    "wide",
    "half-width",
    "half-width-early",
    "thin-start",
    "three-stages",
    "three-stages-deep",
    "small",
)

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
_shape = click.option(
    "--shape",
    type=click.Choice(SHAPE_NAMES),
    default=SHAPE_NAMES[0],
    show_default=True,
    help="Shape of the network: 'bare' is that of runs, 'whole' has all of QANA's elements, as the "
    "others have; 'small' is for trying things out.",
)
_QAT_OPTIONS = (
    click.option(
        "--distillation",
        type=click.FloatRange(0, 1),
        default=1.0,
        show_default=True,
        help="Share of the float network's answers in the quantization-aware targets.",
    ),
    click.option(
        "--spike-band",
        type=click.FloatRange(0),
        default=0.0,
        show_default=True,
        help="Weight, in training, of how far an image's share of spikes is from 3/8.",
    ),
    click.option(
        "--decorrelation",
        type=click.FloatRange(0),
        default=0.0,
        show_default=True,
        help="Weight, in training, of the covariance of the spikes.",
    ),
)
_draws = click.option(
    "--draws",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Draws of exemplars and cases for each network.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def _qat_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options of how a network was trained quantized."""
    for option in reversed(_QAT_OPTIONS):
        command = option(command)
    return command


def _on_networks(command: Callable[..., None]) -> Callable[..., None]:
    """Options of a command that measures trained networks; it gets them as one `Bench`."""

    @_data
    @_out
    @_seeds
    @_shape
    @_qat_options
    @classes_option
    @functools.wraps(command)
    def with_bench(
        data: str,
        out: Path,
        seeds: tuple[int, ...],
        shape: str,
        distillation: float,
        spike_band: float,
        decorrelation: float,
        classes: ClassMap,
        **options: Any,
    ) -> None:
        from simulation.bench.measurements import Bench

        kind = Bench(data, out, seeds, classes, shape, distillation, spike_band, decorrelation)
        command(kind, **options)

    return with_bench


@click.group()
def bench() -> None:
    """Measure conversion and on-chip learning on pooled lesions, as the documentation reports it.

    Whole lesions are split 80/10/10; nothing is chosen on test lesions. Programs run on Akida's
    software backend unless this machine has a device.
    """


bench.add_command(accuracy)
bench.add_command(sites)
bench.add_command(strategies)


@bench.command()
@_data
@_out
@_seeds
@_shape
@classes_option
@click.option("--hold-out", default="", metavar="CODE", help="Class that no training sees.")
@click.option("--float-epochs", type=click.IntRange(1), default=24, show_default=True)
@click.option("--qat-epochs", type=click.IntRange(0), default=10, show_default=True)
@click.option(
    "--event-penalty",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Weight of the mean activation level in the quantization-aware loss.",
)
@_qat_options
def train(
    data: str,
    out: Path,
    seeds: tuple[int, ...],
    shape: str,
    classes: ClassMap,
    hold_out: str,
    float_epochs: int,
    qat_epochs: int,
    **qat_options: Any,
) -> None:
    """Train the networks that the other commands measure; hours with the default options.

    The float half does not depend on the last four options: it is taken from the network with the
    usual ones where that is there.
    """
    from simulation.bench.networks import BenchSettings, bench_cases, train_network

    if hold_out:
        _check_class(hold_out, classes)
    for seed in seeds:
        settings = BenchSettings(
            seed,
            hold_out,
            shape,
            float_epochs=float_epochs,
            qat_epochs=qat_epochs,
            **qat_options,
        )
        cases = bench_cases(data, seed, classes, settings.config.input_size, out / "cache")
        bundle = train_network(settings, cases, classes, out, click.echo)
        fits = [name for name, report in bundle.card.fit.items() if report["fits"]]
        click.echo(f"{out / settings.name}: fits {' and '.join(fits) or 'no device'}")


@bench.command()
@_on_networks
@_json
def conversion(bench: "Bench", as_json: bool) -> None:
    """Print what is lost from float to Akida, and the events of each layer."""
    from simulation.bench import measurements

    rows = measurements.conversion(bench)
    counted = measurements.events(bench)
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
    names = [name for name in counted[0] if name != "seed"]
    _print_table(
        ["layer", *(f"events, seed {row['seed']}" for row in counted)],
        [[name, *(f"{row[name]:.0f}" for row in counted)] for name in names],
    )


@bench.command()
@_data
@_out
@_seeds
@click.option(
    "--shape",
    "names",
    type=click.Choice(SHAPE_NAMES),
    multiple=True,
    default=SHAPE_NAMES[:-1],
    show_default=True,
    help="Shape to compare; give it once for each.",
)
@_qat_options
@classes_option
@_json
def shapes(
    data: str,
    out: Path,
    seeds: tuple[int, ...],
    names: tuple[str, ...],
    classes: ClassMap,
    as_json: bool,
    **qat_options: Any,
) -> None:
    """Compare shapes of the network by what they cost on the chips and their accuracy."""
    from simulation.bench import measurements

    rows = measurements.shapes(measurements.Bench(data, out, seeds, classes, **qat_options), names)
    if as_json:
        _print_json({"shapes": rows})
        return
    devices = list(rows[0]["nps"])
    _print_table(
        [
            "shape",
            *(f"NPs (passes) {device}" for device in devices),
            *(f"bytes {device}" for device in devices),
            "MACs",
            "events",
            *_ACCURACY_COLUMNS,
        ],
        [
            [
                row["shape"],
                *(
                    "does not fit" if row["nps"][d] is None else f"{row['nps'][d]} ({passes})"
                    for d, passes in row["passes"].items()
                ),
                *("" if size is None else f"{size:,}" for size in row["program_bytes"].values()),
                f"{row['macs'] / 1e6:.1f} M",
                f"{row['events']['mean']:,.0f}",
                *_accuracies(row),
            ]
            for row in rows
        ],
    )


@bench.command()
@_on_networks
@click.option(
    "--event-penalty",
    "penalties",
    type=click.FloatRange(0),
    multiple=True,
    default=(0.0, 0.3, 1.0, 3.0),
    show_default=True,
    help="Penalty to compare; give it once for each.",
)
@click.option(
    "--figure",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also draw the curve into this SVG file.",
)
@_json
def sparsity(
    bench: "Bench", penalties: tuple[float, ...], figure: Path | None, as_json: bool
) -> None:
    """Print events and balanced accuracy as the penalty on activations grows."""
    from simulation.bench import measurements

    rows = measurements.sparsity(bench, penalties)
    if figure is not None:
        from common.files import write_atomically
        from server.report.figures import svg
        from simulation.bench.figures import accuracy_against_events

        write_atomically(figure, svg(accuracy_against_events(rows)))
    if as_json:
        _print_json({"sparsity": rows})
        return
    _print_table(
        ["penalty", "events", *_ACCURACY_COLUMNS],
        [
            [f"{row['penalty']:g}", f"{row['events']['mean']:,.0f}", *_accuracies(row)]
            for row in rows
        ],
    )
    _print_table(
        ["layer", *(f"events, penalty {row['penalty']:g}" for row in rows)],
        [[name, *(f"{row['layers'][name]:.0f}" for row in rows)] for name in rows[0]["layers"]],
    )


@bench.command()
@_on_networks
@_draws
@_json
def heads(bench: "Bench", draws: int, as_json: bool) -> None:
    """Compare what decides: the program's head, ways to teach the chip's, and both together."""
    from simulation.bench import measurements

    rows = measurements.heads(bench, draws)
    if as_json:
        _print_json({"heads": rows})
        return
    _print_table(
        ["head", "validation", "test"],
        [[row["head"], _spread(row["validation"]), _spread(row["test"])] for row in rows],
    )


@bench.command()
@_on_networks
@click.option(
    "--hold-out",
    "held_out",
    multiple=True,
    default=("vasc", "df", "bcc", "akiec"),
    show_default=True,
    metavar="CODE",
    help="Held-out class; give it once for each.",
)
@_draws
@_json
def new_class(bench: "Bench", held_out: tuple[str, ...], draws: int, as_json: bool) -> None:
    """Teach a held-out class with 1 to 20 cases at one site, and share it with another.

    Beside it stands what the networks reach that were trained on the class.
    """
    from simulation.bench import measurements

    for code in held_out:
        _check_class(code, bench.classes)
    known = measurements.trained_on(bench, held_out)
    rows = measurements.new_class(bench, held_out, (1, 5, 10, 20), draws)
    hostile = measurements.poisoning(bench, held_out, draws)
    if as_json:
        _print_json({"new_class": rows, "trained_on": known, "poisoned": hostile})
        return
    columns = [name for name in rows[0] if name not in ("class", "cases")]
    _print_table(
        ["class", "cases", *(name.replace("_", " ") for name in columns)],
        [[row["class"], row["cases"], *(_spread(row[name]) for name in columns)] for row in rows],
    )
    _print_table(
        ["class", "cases trained on", "recall within a point"],
        [[r["class"], f"{r['cases']['mean']:.0f}", _spread(r["recall"])] for r in known],
    )
    _print_table(
        ["hostile neurons", "change of balanced accuracy"],
        [[name, _spread(value)] for name, value in hostile.items()],
    )


@bench.command()
@_on_networks
@_json
def wear(bench: "Bench", as_json: bool) -> None:
    """Learn a thousand cases one by one and see what becomes of the others."""
    from simulation.bench import measurements

    rows = measurements.wearing(bench)
    if as_json:
        _print_json({"wear": rows})
        return
    _print_table(
        ["rule", "cases", "balanced accuracy, test"],
        [[row["rule"], row["cases"], _spread(row["test"])] for row in rows],
    )


def _check_class(hold_out: str, classes: ClassMap) -> None:
    from common.errors import SettingsError

    if hold_out not in classes.codes:
        raise SettingsError(
            f"--hold-out {hold_out}: no such class; there are {', '.join(classes.codes)}"
        )


_ACCURACY_COLUMNS = ("float, validation", "Akida, validation", "float, test", "Akida, test")


def _accuracies(row: dict[str, Any]) -> list[str]:
    return [_spread(row[part][form]) for part in ("validation", "test") for form in row[part]]


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
