"""Progress on the terminal of what may take minutes before anything else is said."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def finding_lesions() -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error that appears with the first (done, total) it is told."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("finding lesions", total=None, visible=False)
        yield lambda done, total: progress.update(task, completed=done, total=total, visible=True)
