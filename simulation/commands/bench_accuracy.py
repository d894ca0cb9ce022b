"""`fedqana bench accuracy`: the records behind docs/benchmarks.md, and their table."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from common.classes import ClassMap
from common.commands.options import classes_option, saliency_weights_option
from server.commands.network_options import network_config, network_options
from server.commands.plan_options import initial_option
from simulation.bench.accuracy.rows import ROW_NAMES, row_of

if TYPE_CHECKING:
    from simulation.bench.accuracy.deployed import Part
    from simulation.bench.records import Record

_out = click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("fedqana-accuracy"),
    show_default=True, help="Folder of the records; what is there is not made again.",
)  # fmt: skip


@click.group()
def accuracy() -> None:
    """Measure accuracy on whole lesions, one row of a table at a time.

    Each row and seed becomes a record, a small JSON file of settings and numbers. Sites are the
    data's sources; lesions are split 80/10/10 within each, and all rows of a seed but 'leaky' are
    judged on the same test lesions, at the end, which choose nothing.
    """


@accuracy.command()
@click.argument("row", type=click.Choice(ROW_NAMES))
@click.option(
    "--data",
    required=True,
    help="Folder of labelled images, or synthetic:N for N made-up lesions.",
)
@click.option(
    "--seed", "seeds", type=click.IntRange(0, 2**32 - 1), multiple=True, default=(0, 1, 2),
    show_default=True, help="Seed of split, weights and training; give it once for each.",
)  # fmt: skip
@click.option(
    "--site",
    default="",
    help="The site that 'alone', or the network of 'alone-flips', is trained on.",
)
@click.option(
    "--epochs", type=click.IntRange(1), default=48, show_default=True,
    help="Passes over the training images; 'leaky' takes a quarter of them over four views each.",
)  # fmt: skip
@click.option("--batch", type=click.IntRange(2), default=64, show_default=True)
@click.option(
    "--learning-rate", type=click.FloatRange(0, min_open=True), default=1e-3, show_default=True,
    help="Of Adam at first; it falls along half a cosine to a fiftieth.",
)  # fmt: skip
@click.option(
    "--freeze-batch-norm", type=click.FloatRange(0, 1), default=0.5, show_default=True,
    help="Share of the epochs after which batch norm's statistics are fixed; 1 for never.",
)  # fmt: skip
@network_options
@click.option(
    "--bfloat16", is_flag=True, help="Let 'resnet18' compute in bfloat16 where the CPU can."
)
@click.option(
    "--threads", type=click.IntRange(1), help="Processor threads.  [default: TensorFlow's choice]"
)
@_out
@initial_option("random")
@saliency_weights_option
@classes_option
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON.")
def run(
    row: str, data: str, seeds: tuple[int, ...], site: str, epochs: int, batch: int,
    learning_rate: float, freeze_batch_norm: float, network: str, elements: str | None,
    bfloat16: bool, threads: int | None, out: Path, initial: str, saliency_weights: str,
    classes: ClassMap, as_json: bool,
) -> None:  # fmt: skip
    """Make the records of ROW; a stopped training goes on where it was."""
    wanted = row_of(row, site)
    if threads is not None:
        _use_threads(threads)
    from common.commands.progress import finding_lesions
    from simulation.bench.accuracy.central_training import Schedule
    from simulation.bench.accuracy.making import Options, make_record
    from simulation.bench.accuracy.records import record_file

    schedule = Schedule(epochs, batch, learning_rate, freeze_batch_norm)
    records = []
    with finding_lesions() as finding:
        options = Options(
            data, out, classes, network_config(network, elements), schedule, saliency_weights,
            bfloat16, initial, lambda line: click.echo(line, err=True), finding,
        )  # fmt: skip
        for seed in seeds:
            record = make_record(wanted, seed, options)
            records.append(record)
            if not as_json:
                file = record_file(out, wanted.name, seed)
                click.echo(f"{wanted.name} seed {seed}: {_reached(record)} test images ({file})")
    if as_json:
        click.echo(json.dumps({"records": records}, indent=2))


@accuracy.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--runs-out", type=click.Path(file_okay=False, path_type=Path), default=Path("fedqana-out"),
    show_default=True, help="Output folder of the runs.",
)  # fmt: skip
@_out
@click.option(
    "--on", "part", type=click.Choice(["test", "validation"]), default="test", show_default=True,
    help="The sites' lesions that are judged; a choice between rows needs those of validation.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON.")
def deployed(runs: tuple[str, ...], runs_out: Path, out: Path, part: "Part", as_json: bool) -> None:
    """Make the records of simulated RUNs as their sites serve them.

    The rows are 'program', the run's last Akida program by one view of an image, 'site-program',
    that which serves at each site, fine-tuned there or not, and 'answers', what a site answers by
    its program's head and its own chip's together; those ending in '-flips' are by eight views.
    The seed is the run's.
    """
    from simulation.bench.accuracy.deployed import make_deployed_records
    from simulation.run import find_run

    records = []
    for run in runs:
        for record in make_deployed_records(find_run(runs_out, run), out, part):
            records.append(record)
            if not as_json:
                click.echo(f"{run} {record['row']}: {_reached(record)} {part} images")
    if as_json:
        click.echo(json.dumps({"records": records}, indent=2))


@accuracy.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
def table(folder: Path, as_json: bool) -> None:
    """Print the table of all records in FOLDER, as Markdown."""
    from simulation.bench.accuracy.records import all_records
    from simulation.bench.accuracy.table import markdown, summarized

    rows = summarized(all_records(folder))
    click.echo(json.dumps({"rows": rows}, indent=2) if as_json else markdown(rows))


def _reached(record: "Record") -> str:
    found = record["result"]["balanced_accuracy"]["value"]
    shown = "too few cases" if found is None else f"{found:.3f}"
    return f"balanced accuracy {shown} on {record['test']['images']}"


def _use_threads(threads: int) -> None:
    """Before TensorFlow starts its own, of which it would take one for each processor."""
    from common.errors import SettingsError
    from common.keras_setup import tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError as error:  # it is at work in this process already
        raise SettingsError("--threads: call this in a process of its own") from error
