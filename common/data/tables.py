"""Tables that list labelled images: HAM10000's metadata or a hospital's own CSV."""

import csv
import io
import os
from dataclasses import dataclass
from pathlib import Path

from common.errors import DataUnreadable

PATH_COLUMNS = ("image_path", "path", "file", "filename", "image", "image_id")
LABEL_COLUMNS = ("dx", "diagnosis", "label", "class")
SOURCE_COLUMNS = ("source", "dataset")


_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}


@dataclass(frozen=True)
class TableRow:
    """One line of a table; ``values`` is keyed by lower-case column name."""

    line: int
    values: dict[str, str]

    def first(self, columns: tuple[str, ...]) -> str:
        """The first value among ``columns`` that is there and not empty, else ``""``."""
        return next((self.values[c] for c in columns if self.values.get(c)), "")


@dataclass(frozen=True)
class ImageTable:
    """A parsed table: its lower-case column names and its lines, empty lines left out."""

    path: Path
    columns: frozenset[str]
    rows: list[TableRow]


def read_table(path: Path) -> ImageTable:
    """Parse UTF-8 text with a header line, separated by commas, semicolons or tabs.

    Raises DataUnreadable where it is not such a table; the message names file and line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataUnreadable(f"cannot read {path}: {os.strerror(error.errno or 0)}") from error
    return parse_table(content, path)


def parse_table(content: bytes, path: Path) -> ImageTable:
    """As `read_table`, of a file whose content is known; ``path`` is what messages call it."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataUnreadable(f"{path} is not UTF-8 text; save it as CSV with UTF-8") from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")  # as files are read
    written = text.lstrip("\r\n")
    skipped, text = text[: len(text) - len(written)].count("\n"), written
    header = text.split("\n", 1)[0]
    separator = max(_SEPARATORS, key=header.count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        columns = [c.strip().lower() for c in next(lines, [])]
        rows = []
        for values in lines:
            if not any(v.strip() for v in values):
                continue
            line = skipped + lines.line_num
            if len(values) != len(columns):
                raise DataUnreadable(
                    f"{path} line {line}: {len(values)} values under {len(columns)} columns, "
                    f"separated by {_SEPARATORS[separator]} as in the first line; correct the line"
                )
            row = dict(zip(columns, (v.strip() for v in values), strict=True))
            rows.append(TableRow(line, row))
    except csv.Error as error:
        raise DataUnreadable(
            f"{path} line {skipped + lines.line_num} is not CSV: {error}"
        ) from error
    return ImageTable(path, frozenset(columns), rows)


def lists_images(table: ImageTable) -> bool:
    """Whether a table has a column for the image and one for the diagnosis."""
    return not (table.columns.isdisjoint(PATH_COLUMNS) or table.columns.isdisjoint(LABEL_COLUMNS))


def missing_columns(table: ImageTable) -> str:
    """What to tell the owner of a table that does not list images."""
    return (
        f"{table.path} needs an image column ({', '.join(PATH_COLUMNS)}) and a diagnosis column "
        f"({', '.join(LABEL_COLUMNS)}) in its first line"
    )
