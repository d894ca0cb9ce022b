"""A folder in which a hospital puts CSV files and images: each row is a confirmed case to learn.

``python -m edge_client.watched_folder HOME`` watches the folder that ``client.toml`` names and has
the local service learn. `docs/watched-folder.md` says what the files look like.
"""

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from common.data.image_files import is_not_the_users
from common.errors import DataNotFound, FedqanaError, SettingsError
from common.file_lock import file_lock
from common.files import writing_to
from common.json_log import log_to_stream
from edge_client.watch_records import WORK, tidy
from edge_client.watch_scan import Learn, LearnOutcome, Scan, ScanReport, WatchSettings, kind_of

__all__ = ["Learn", "LearnOutcome", "ScanReport", "WatchSettings", "scan_once", "watch"]

log = logging.getLogger("fedqana.watch")

_LONGEST_DELAY = 300.0


def scan_once(
    folder: Path,
    learn: Learn,
    settings: WatchSettings | None = None,
    stop: threading.Event | None = None,
    unanswered: set[str] | None = None,
) -> ScanReport:
    """Learn what is ready in the folder, and write down what became of each row.

    A row that was acknowledged is never handed to ``learn`` again; after a kill at any moment
    only the one that was under way may be, with the same case id.

    Parameters
    ----------
    folder : Path
    learn : callable
    settings : WatchSettings, optional
    stop : threading.Event, optional
        Ends the look after the row that is under way.
    unanswered : set of str, optional
        Ids of the cases that had no answer in earlier looks; brought up to date. Three more in a
        row, and the service is taken to be down for the rest of this look.

    Raises
    ------
    DataNotFound
        The folder is not there.
    StateInUse
        Another process watches it.
    StorageFull
        The folder cannot be written.
    """
    if not folder.is_dir():
        raise DataNotFound(f"there is no folder {folder} to watch; make it or name another")
    folder = folder.resolve()
    scan = Scan(
        folder,
        learn,
        settings or WatchSettings(),
        stop or threading.Event(),
        set() if unanswered is None else unanswered,
    )
    busy = f"another process watches {folder}; stop one of both"
    with file_lock(folder / WORK / "lock", 0.0, busy):
        with writing_to(folder):
            names = _csv_files(folder)
            tidy(folder, names)
        for name in names:
            scan.file(name)
    return scan.report()


def watch(
    folder: Path,
    learn: Learn,
    interval: float,
    stop: threading.Event,
    settings: WatchSettings | None = None,
) -> None:
    """Look at the folder every ``interval`` seconds until ``stop`` is set, whatever happens.

    After looks that failed the pauses double, up to five minutes. The log has counts and kinds
    of errors only.
    """
    failures, before = 0, ScanReport()
    unanswered: set[str] = set()
    while not stop.is_set():
        try:
            report = scan_once(folder, learn, settings, stop, unanswered)
        except Exception as error:
            failures += 1
            log.warning("the watched folder cannot be used now: %s", kind_of(error))
        else:
            failures = failures + 1 if report.halted else 0
            if report != before:
                _log(report)
            before = report
        delay = interval * 2 ** min(failures, 20)
        stop.wait(min(delay, max(interval, _LONGEST_DELAY)))


def _log(report: ScanReport) -> None:
    counts = (
        f"rows: {report.learned} learned, {report.duplicates} known already, {report.refused} "
        f"refused, {report.waiting} waiting; files: {report.files_done} done, "
        f"{report.files_failed} refused, {report.files_waiting} waiting"
    )
    if report.obstacles:
        log.warning("%s; met %s", counts, ", ".join(report.obstacles))
    else:
        log.info("%s", counts)


def _csv_files(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if entry.name.lower().endswith(".csv")
            and not is_not_the_users(entry.name)
            and not entry.is_dir(follow_symlinks=False)
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Watch the folder of the site's ``client.toml`` until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(
        prog="python -m edge_client.watched_folder",
        description="Watch the folder that client.toml in HOME names, and have the running local "
        "service learn the cases that are put there, until SIGTERM.",
    )
    parser.add_argument("home", type=Path, metavar="HOME", help="the edge client's folder")
    home: Path = parser.parse_args(arguments).home.absolute()
    log_to_stream()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        _watch_for(home, stop)
    except FedqanaError as error:
        log.error("%s", " ".join(str(error).split()))
        return error.exit_status
    return 0


def _watch_for(home: Path, stop: threading.Event) -> None:
    from edge_client.client_folder import ClientFolder
    from edge_client.local_service.client import LocalServiceClient
    from edge_client.local_service.settings import own_address

    settings = ClientFolder(home).config().watch
    if not settings.folder:
        raise SettingsError(f"{home / 'client.toml'} names no folder to watch; set watch.folder")
    with LocalServiceClient(own_address(home)) as service:

        def learn(image: bytes, diagnosis: str, case_id: str, lesion_id: str) -> LearnOutcome:
            answer = service.learn(image, diagnosis, case_id, lesion_id)
            if answer.learned:
                return LearnOutcome("learned")
            now = f"counts as {answer.diagnosis}" if answer.diagnosis else "was forgotten"
            return LearnOutcome("duplicate", f"the case was known already and {now}")

        watch(home / settings.folder, learn, settings.interval, stop)


if __name__ == "__main__":
    sys.exit(main())
