"""`fedqana data smote`: what SMOTE would add to a site's training cases, and what it looks like."""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import click

from common.classes import ClassMap
from common.commands.options import classes_option
from common.errors import SettingsError

# As in common.data.smote, which takes a while to import: --help is to be quick.
_SHARE, _COMPONENTS = 0.25, 4096


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--sheet", type=click.Path(path_type=Path), help="HTML file to write, with images of both."
)
@click.option(
    "--source", help="Only the lesions of this source (HAM10000's 'dataset'), as one site."
)
@click.option(
    "--share", type=click.FloatRange(0, 1, min_open=True), default=_SHARE, show_default=True,
    help="Share of the largest class up to which the others are filled, if less than twice the "
    "cases.",
)  # fmt: skip
@click.option(
    "--components", type=click.IntRange(1), default=_COMPONENTS, show_default=True,
    help="Of the whitened space, at most. Runs use the default.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
@classes_option
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
def smote(
    folder: Path, sheet: Path | None, source: str | None, share: float, components: int,
    seed: int, classes: ClassMap, as_json: bool,
) -> None:  # fmt: skip
    """Make SMOTE's cases of FOLDER's training part and show how many, and what they look like.

    The training part is 80 % of the lesions. Nothing but the sheet is written.
    """
    from common.data.preparation import prepare_cases
    from common.data.readers import read_lesion_images
    from common.data.sites import assign_sites
    from common.data.smote import smote as oversample
    from common.data.smote_sheet import smote_sheet
    from common.data.splits import FRACTIONS, split_by_lesion
    from common.files import write_atomically
    from common.seeds import derive_seed

    images = read_lesion_images(folder, classes)
    if source is not None:
        sites = assign_sites(images, "source", seed)
        if source not in sites:
            raise SettingsError(f"--source {source}: the data's sources are {', '.join(sites)}")
        images = sites[source]
    name = source or ""
    train = split_by_lesion(images, FRACTIONS, derive_seed(seed, "split", name))["train"]
    cases = prepare_cases(train, classes)
    started, used = time.perf_counter(), time.process_time()
    found = oversample(cases, len(classes), seed, share=share, components=components)
    seconds, used = time.perf_counter() - started, time.process_time() - used
    summary: dict[str, Any] = {
        "folder": str(folder),
        "source": source,
        "training_cases": len(cases),
        "made": len(found.parents),
        "target": found.target,
        "components": found.components,
        "seconds": round(seconds, 2),
        "processor_seconds": round(used, 2),
        "peak_mib": _peak_mib(),
        "classes": {
            code: {"cases": o.cases, "made": o.made, "outcome": o.outcome}
            for code, o in zip(classes.codes, found.outcomes, strict=True)
        },
        "sheet": None if sheet is None else str(sheet),
    }
    if sheet is not None:
        title = f"SMOTE on {source or folder.resolve().name}"
        write_atomically(sheet, smote_sheet(found, classes.codes, title, seed).encode(), 0o600)
    click.echo(json.dumps(summary, indent=2) if as_json else _in_words(summary))


def _peak_mib() -> int:
    """The most memory that this process has had, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak // (2**20 if sys.platform == "darwin" else 2**10))


def _in_words(summary: dict[str, Any]) -> str:
    lines = [f"{'class':<12}{'cases':>8}{'made':>8}  outcome"]
    lines += [
        f"{code:<12}{of['cases']:>8}{of['made']:>8}  {of['outcome']}"
        for code, of in summary["classes"].items()
    ]
    lines += [
        "",
        f"{summary['made']} made of {summary['training_cases']} training cases, classes filled up "
        f"to {summary['target']}, {summary['components']} components: {summary['seconds']:.1f} s "
        f"({summary['processor_seconds']:.1f} s of one processor), peak memory of the process "
        f"{summary['peak_mib']} MiB",
    ]
    if summary["sheet"]:
        lines.append(f"sheet: {summary['sheet']} (images of patients: keep it as these are kept)")
    return "\n".join(lines)
