"""`fedqana data`: look at a folder of labelled images, or make one up."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from common.classes import ClassMap
from common.commands.crops import crops
from common.commands.options import classes_option
from common.commands.smote import smote
from common.errors import DataUnfit, SettingsError
from common.files import writing_to

if TYPE_CHECKING:
    from common.data.check import DataReport


@click.group()
def data() -> None:
    """Check labelled images before training, or make up a data set to try things with."""


@data.command()
@click.argument("folder", type=click.Path(path_type=Path))
@classes_option
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def check(folder: Path, classes: ClassMap, as_json: bool) -> None:
    """Report what FOLDER holds; exit status 13 where training on it would be wrong."""
    from common.data.check import check_folder

    report = check_folder(folder, classes)
    click.echo(json.dumps(report.as_json(), indent=2) if as_json else _in_words(report))
    if report.problems:
        raise DataUnfit(
            f"{folder} is not fit for training: {len(report.problems)} problem(s), listed above; "
            "correct them and check again"
        )


def _in_words(report: "DataReport") -> str:
    lines = [f"{report.folder}: {report.images} images of {report.lesions} lesions", ""]
    lines.append(f"{'class':<12}{'images':>8}{'lesions':>9}")
    lines += [f"{c:<12}{n.images:>8}{n.lesions:>9}" for c, n in report.classes.items()]
    for title, items in (("Problems", report.problems), ("Notes", report.notes)):
        if items:
            lines += ["", f"{title}:", *(f"  - {item}" for item in items)]
    if not report.problems:
        lines += ["", "Fit for training."]
    return "\n".join(lines)


@data.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--lesions", type=click.IntRange(1, 99999), default=400, show_default=True,
    help="Number of lesions, with one to three images each.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def make(folder: Path, lesions: int, seed: int, as_json: bool) -> None:
    """Write made-up lesions to FOLDER: one folder per class, and cases.csv with lesion ids."""
    from common.data.synthetic import (
        synthetic_lesion_images,
        write_case_list,
        write_class_folders,
    )

    with writing_to(folder):
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise SettingsError(f"{folder} exists and is not an empty folder; name a new one")
    images = synthetic_lesion_images(lesions, seed)
    write_class_folders(images, folder)
    write_case_list(images, folder)
    if as_json:
        summary = {"folder": str(folder), "images": len(images), "lesions": lesions, "seed": seed}
        click.echo(json.dumps(summary, indent=2))
    else:
        click.echo(f"{folder}: {len(images)} images of {lesions} made-up lesions")


data.add_command(smote)
data.add_command(crops)
