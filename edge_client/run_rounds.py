"""A site's own count of rounds, which goes on from run to run.

Journal and versions of a site outlive a run: what a chip learned in one is trained on in the next,
and a version of a run is judged by the one in service, whatever run that is of. Each run counts its
rounds from 1, and an older run may be resumed after a newer one; so the site numbers rounds in the
order in which it first hears of them. ``rounds/runs.json`` in the state folder remembers them.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from common.errors import StateDamaged
from common.files import write_atomically
from edge_client.case_journal import CaseJournal
from edge_client.client_folder import pinned_seal
from edge_client.site import SiteFolder
from edge_client.versions import VersionFolder

# In a folder of its own: in the state folder what looks half-written is cleared away.
_FILE = Path("rounds", "runs.json")


@dataclass
class _Known:
    """The highest number given, and each run's rounds: "0" is what was before the run."""

    last: int
    runs: dict[str, dict[str, int]] = field(default_factory=dict)


class SiteRounds:
    """Where a run's rounds lie among the site's own.

    Parameters
    ----------
    state_dir : Path
    run : str
    coordinator : str
        What tells one coordinator's runs from those of another with the same names, e.g. its key.
    """

    def __init__(self, state_dir: Path, run: str, coordinator: str = "") -> None:
        self._state_dir = state_dir
        self._run = run
        self._key = f"{run} of {coordinator}" if coordinator else run

    def number(self, run_round: int) -> int:
        """The site's number of a run's round, given when it is first asked for, durable.

        Round 0 is the last one before the run.
        """
        known = self._read()
        rounds = known.runs.setdefault(self._key, {})
        if "0" not in rounds:
            rounds["0"] = known.last
        elif str(run_round) in rounds:
            return rounds[str(run_round)]
        if run_round:
            known.last += 1
            rounds[str(run_round)] = known.last
        content = json.dumps(asdict(known)).encode()
        write_atomically(self._state_dir / _FILE, content)
        return rounds[str(run_round)]

    def version(self, run_version: int) -> str:
        """The site's name of a run's version."""
        return f"{self._run}.{run_version}"

    def run_version(self, name: str) -> int:
        """The run's number of a version by its name at the site; 0 for one of another run."""
        run, _, number = name.rpartition(".")
        return int(number) if run == self._run and number.isdecimal() else 0

    def _read(self) -> _Known:
        path = self._state_dir / _FILE
        if not path.exists():
            return _Known(_last_round(self._state_dir))
        try:
            value = json.loads(path.read_text())
            runs = {
                str(k): {str(r): int(n) for r, n in v.items()} for k, v in value["runs"].items()
            }
            return _Known(int(value["last"]), runs)
        except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
            raise StateDamaged(
                f"{path} is not what was written there; restore it from a backup"
            ) from error


def rounds_of(folder: SiteFolder, run: str) -> SiteRounds:
    """Where the rounds of a run of the site's coordinator lie among the site's own."""
    return SiteRounds(folder.state, run, (pinned_seal(folder.path) or "")[:8])


def _last_round(state_dir: Path) -> int:
    """The highest round of any version or case that the site has; 0 for a new one."""
    versions = VersionFolder(state_dir)
    rounds = [versions.report(name).round for name in versions.names()]
    journal = CaseJournal(state_dir / "cases.journal", read_only=True)
    rounds += [case.round for case in journal.facts()]
    return max(rounds, default=0)
