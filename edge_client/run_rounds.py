"""A site's own count of rounds, which goes on from run to run.

Journal and versions of a site outlive a run: what a chip learned in one is trained on in the next.
Each run counts its rounds from 1, so a run's rounds are put after those of the runs before.
``runs.json`` in the state folder says after how many.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from common.errors import StateDamaged
from common.files import write_atomically
from edge_client.case_journal import CaseJournal
from edge_client.versions import VersionFolder

_FILE = "runs.json"


@dataclass(frozen=True)
class SiteRounds:
    """Where a run's rounds lie among the site's own.

    Parameters
    ----------
    run : str
    before : int
        Rounds of the site before the run's first.
    """

    run: str
    before: int

    def number(self, run_round: int) -> int:
        """The site's number of a run's round; round 0 is what was before the run."""
        return self.before + run_round

    def version(self, run_version: int) -> str:
        """The site's name of a run's version."""
        return f"{self.run}.{run_version}"

    def run_version(self, name: str) -> int:
        """The run's number of a version by its name at the site; 0 for one of another run."""
        run, _, number = name.rpartition(".")
        return int(number) if run == self.run and number.isdecimal() else 0


def site_rounds(state_dir: Path, run: str) -> SiteRounds:
    """A run's place among the site's rounds, decided once, when the site first hears of it."""
    path = state_dir / _FILE
    known: dict[str, int] = {}
    if path.exists():
        try:
            known = {
                str(name): int(before) for name, before in json.loads(path.read_text()).items()
            }
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise StateDamaged(
                f"{path} is not what was written there; restore it from a backup"
            ) from error
    if run not in known:
        known[run] = _last_round(state_dir)
        write_atomically(path, json.dumps(known).encode())
    return SiteRounds(run, known[run])


def _last_round(state_dir: Path) -> int:
    """The highest round of any version or case that the site has; 0 for a new one."""
    versions = VersionFolder(state_dir)
    rounds = [versions.report(name).round for name in versions.names()]
    journal = CaseJournal(state_dir / "cases.journal", read_only=True)
    rounds += [case.round for case in journal.cases()]
    return max(rounds, default=0)
