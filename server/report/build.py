"""Writes the run report: one HTML file that needs nothing else."""

from datetime import UTC, datetime
from pathlib import Path

import jinja2

from common import __version__
from common.files import write_atomically
from server.history.records import RunRecord
from server.report.content import facts, sections
from server.report.view import moment

SHEETS = "sheets"
"""Folder of a simulated run's contact sheets, which show patients' images and so are no part of the
report itself."""


def write_report(record: RunRecord, output: Path) -> None:
    """Write the report of a finished, stopped or still running run.

    Parameters
    ----------
    record : RunRecord
        What the history knows of the run; whatever is missing in it is left out or said.
    output : Path
        HTML file, replaced as a whole; it names the contact sheets in the folder `SHEETS` beside.

    Raises
    ------
    StorageFull
        The file cannot be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("report.html.j2").render(
        run_id=record.run.run_id,
        facts=facts(record),
        sections=sections(record),
        sheets=sorted(file.name for file in _sheets(record, output)),
        sheets_folder=SHEETS,
        written=moment(datetime.now(UTC)),
        version=__version__,
    )
    write_atomically(output, html.encode("utf-8", errors="replace"))


def _sheets(record: RunRecord, output: Path) -> list[Path]:
    """The contact sheets, where the report is written into its run's folder, moved or not."""
    if output.parent.name != Path(record.run.folder).name:
        return []
    return list((output.parent / SHEETS).glob("*.html"))
