"""How the commands print tables: unwrapped in files and pipes, and nothing read as markup."""

import sys

from rich.console import Console
from rich.table import Table

# In a file or pipe nothing is wrapped, so that one line stays one row for grep.
_WIDTH_WITHOUT_TERMINAL = 400


def plain_console() -> Console:
    """A console for words that come from plans, sites, cards and folders: none is markup."""
    width = None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL
    return Console(width=width, markup=False, emoji=False, highlight=False)


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table without lines, columns of numbers to the right; nothing without rows."""
    if not rows:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        numeric = all(_is_number(row[index]) for row in rows)
        table.add_column(column, overflow="fold", justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*row)
    console = plain_console()
    if title:
        console.print(f"\n{title}")
    console.print(table)


def _is_number(cell: str) -> bool:
    return not cell or cell == "-" or cell.replace(",", "").replace(".", "").isdigit()
