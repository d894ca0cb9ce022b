"""Which of its cases a site reports on: none of classes that have too few."""

from dataclasses import dataclass, field, fields

import numpy as np

from common.data.cases import Cases
from edge_client.policy import Policy
from edge_client.site import SiteData


@dataclass(frozen=True)
class ReportedSite(SiteData):
    """A site's data as it is reported; ``whole`` is all of it.

    Lesions that are left out of the reports are held back from learning all the same.
    """

    whole: SiteData = field(kw_only=True)

    @property
    def held_back(self) -> frozenset[str]:
        """Ids of the lesions that nothing may be learned from."""
        return self.whole.held_back


def reported(data: SiteData, policy: Policy) -> SiteData:
    """The data with the policy's limits on what is told of it; the same object without any."""
    fewest = policy.reporting.min_cases_per_class
    shares = data.shares_neurons and policy.sharing.neurons
    if not fewest and shares == data.shares_neurons:
        return data
    values = {each.name: getattr(data, each.name) for each in fields(data)}
    values["shares_neurons"] = shares
    for part in ("validation", "test"):
        values[part] = _of_large_classes(values[part], fewest)
    return ReportedSite(**values, whole=data)


def objection_to_balancing(policy: Policy) -> str:
    """Why nothing may be told of how training cases are answered, or an empty text."""
    if not policy.training.take_part:
        return "the policy says take_part = false"
    if policy.privacy.epsilon:
        return "the policy's privacy budget is of the update; this would be told without noise"
    return ""


def judged_on(data: SiteData) -> Cases:
    """All held-back validation cases, reported or not: what the site itself judges programs by."""
    return data.whole.validation if isinstance(data, ReportedSite) else data.validation


def _of_large_classes(cases: Cases, fewest: int) -> Cases:
    if not len(cases):
        return cases
    counts = np.bincount(cases.labels)
    return cases.subset(np.flatnonzero(counts[cases.labels] >= fewest))
