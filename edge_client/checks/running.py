"""All checks: groups side by side, within a group one after the other, none without a limit."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

from common.errors import DataNotFound, FedqanaError
from edge_client.checks.findings import Check, Finding, Outcome, failed, not_checked, one_line
from edge_client.checks.folder import FolderChecks
from edge_client.checks.limits import within
from edge_client.checks.machine import MachineChecks
from edge_client.checks.network import NetworkChecks
from edge_client.checks.programs import ProgramChecks
from edge_client.checks.site import SiteChecks
from edge_client.client_folder import CONFIG

MOST_SECONDS = 11.0
"""For all checks together; a check that has not begun by then is not checked."""


def run_checks(
    home: Path, data: Path | None = None, most_seconds: float = MOST_SECONDS
) -> Iterator[Finding]:
    """Look at everything and give one finding after the other, in a fixed order.

    Nothing in the site's folder is changed.

    Parameters
    ----------
    home : Path
        The edge client's folder.
    data : Path, optional
        A folder of labelled images that is looked at too.

    Raises
    ------
    DataNotFound
        ``home`` is no edge client's folder.
    """
    if not ((home / CONFIG).exists() or (home / "site.json").exists()):
        raise DataNotFound(
            f"{home} is not an edge client's folder; join with 'fedqana client join FILE --data "
            "DIR' or name the folder with --home"
        )
    give_up = time.monotonic() + most_seconds
    promised: list[Future[Finding]] = []
    for group in check_groups(home, data):
        pairs: list[tuple[Check, Future[Finding]]] = [(check, Future()) for check in group]
        promised += [future for _, future in pairs]
        threading.Thread(target=_one_by_one, args=(pairs, give_up), daemon=True).start()
    for future in promised:
        yield future.result()


def check_groups(home: Path, data: Path | None = None) -> list[Sequence[Check]]:
    """All checks; within a group a later one may build on an earlier one."""
    return [
        FolderChecks(home).checks(),
        NetworkChecks(home).checks(),
        SiteChecks(home, data).checks(),
        MachineChecks(home).checks(),
        ProgramChecks(home).checks(),
    ]


def _one_by_one(pairs: Sequence[tuple[Check, "Future[Finding]"]], give_up: float) -> None:
    for check, future in pairs:
        started = time.monotonic()
        seconds = min(check.seconds, give_up - started)
        outcome = (
            _limited(check, seconds) if seconds > 0 else not_checked("no time was left for it")
        )
        took = round(time.monotonic() - started, 3)
        future.set_result(Finding(check.name, outcome.standing, one_line(outcome.text), took))


def _limited(check: Check, seconds: float) -> Outcome:
    try:
        return within(seconds, lambda: outcome_of(check))
    except TimeoutError:
        return check.too_slow or failed(
            f"no result after {seconds:.0f} s; this machine or its disk is busy, or hangs: try "
            "again, and see the system's log"
        )


def outcome_of(check: Check) -> Outcome:
    """What a check finds, without a limit of time; it never raises."""
    try:
        return check.look()
    except FedqanaError as error:
        return failed(str(error))
    except Exception as error:  # the other checks go on
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        where = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else ""
        return failed(
            f"the check itself failed ({type(error).__name__} at {where}); report it as a bug"
        )
