"""Which model version each site has in service, as far as the coordinator was told."""

from collections.abc import Collection, Sequence

from server.delivery_order import delivered_by
from server.history.excerpts import Excerpts
from server.history.records import DELIVERY_OF, EdgeUpdate, Promotion, Run

_RUNS_AT_ONCE = 8
_MOST_RUNS = 200
"""A site that switched in none of so many runs is shown without a version."""


def serving(excerpts: Excerpts, runs: Sequence[Run], sites: Collection[str]) -> dict[str, str]:
    """The version, as RUN:VERSION, that each site last said to have switched to.

    Parameters
    ----------
    excerpts : Excerpts
    runs : sequence of Run
        Newest first; looked at until all sites are known.
    sites : collection of str
        Names; those that never switched are left out of the answer.
    """
    found: dict[str, str] = {}
    for start in range(0, min(len(runs), _MOST_RUNS), _RUNS_AT_ONCE):
        some = runs[start : start + _RUNS_AT_ONCE]
        updates = excerpts.outcomes([run.run_id for run in some])
        for run in some:
            own = [u for u in updates if u.run_id == run.run_id and u.switched]
            latest = {u.site: delivered_by(run, u.version) for u in own}
            for site, version in latest.items():
                found.setdefault(site, version)
        if set(sites) <= found.keys():
            break
    return {site: version for site, version in found.items() if site in sites}


def delivery_of(promotion: Promotion, runs: Sequence[Run]) -> Run | None:
    """The run that brought a promoted version to the sites: of those of it, the nearest in time."""
    name = f"{DELIVERY_OF}{promotion.run_id}:{promotion.version}"
    own = [run for run in runs if run.data == name]
    return min(own, key=lambda run: abs(run.created_at - promotion.at), default=None)


def outcome(updates: list[EdgeUpdate]) -> str:
    """How many sites took a version into service, and which did not."""
    if not updates:
        return "no site has answered"
    kept = sorted(f"{u.site} ({u.reason})" for u in updates if not u.switched)
    text = f"{len(updates) - len(kept)} of {len(updates)} sites switched"
    return text + (f"; not {', '.join(kept)}" if kept else "")
