"""What the page of the models says: a run's versions, and what was promoted."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from common.intervals import Estimate
from server.dashboard.in_service import delivery_of, outcome, serving
from server.dashboard.source import Source
from server.history.excerpts import Excerpts
from server.history.records import ModelVersion, Promotion, Run
from server.report.readings import mapping, whole
from server.report.view import DASH, Cell, estimate, size

_METRICS = ("balanced_accuracy", "macro_f1", "macro_auc", "melanoma_sensitivity")
METRIC_NAMES = (
    "balanced accuracy",
    "macro-F1",
    "AUC (macro)",
    "melanoma sens. at 90 % spec.",
)


@dataclass(frozen=True)
class Fit:
    """How a version's program maps onto one device."""

    device: str
    fits: bool
    detail: str


@dataclass(frozen=True)
class VersionRow:
    """One model version; ``promoted`` is "now", "before" or ""."""

    name: str
    run: str
    version: int
    parent: str
    phase: str
    made: datetime
    metrics: tuple[Cell, ...]
    fits: tuple[Fit, ...]
    sites: tuple[str, ...]
    promoted: str
    card: str
    folder: str


@dataclass(frozen=True)
class PromotionRow:
    """One promotion and what the sites did with it."""

    at: datetime
    name: str
    run: str
    action: str
    outcome: str
    delivery: str


def models(source: Source, name: str | None) -> dict[str, Any]:
    """Versions of one run, by default of the newest that has any; and all promotions."""
    with source.open() as excerpts:
        stored = excerpts.history.list_runs()
        run = _chosen(excerpts, stored, name)
        versions = excerpts.versions_of(run.run_id) if run else []
        promotions = excerpts.members.promotions()
        sites = {member.name for member in excerpts.members.all()}
        serves = serving(excerpts, stored, sites)
        rows = [_promotion(excerpts, p, stored) for p in promotions[::-1]]
    return {
        "page": "models",
        "run": run,
        "runs": [r for r in stored if not r.is_delivery],
        "versions": version_rows(versions, promotions, serves),
        "metric_names": METRIC_NAMES,
        "promotions": rows,
        "others": sorted(set(serves.values()) - {f"{v.run_id}:{v.version}" for v in versions}),
        "serves": serves,
    }


def _chosen(excerpts: Excerpts, runs: list[Run], name: str | None) -> Run | None:
    if name is not None:
        return excerpts.history.get_run(name)
    newest = excerpts.versions(1)
    if newest:
        return next((run for run in runs if run.run_id == newest[0].run_id), None)
    return None


def version_rows(
    versions: Sequence[ModelVersion], promotions: Sequence[Promotion], serves: dict[str, str]
) -> list[VersionRow]:
    """Lines for ``versions`` in their order; ``serves`` names each site's version."""
    promoted = [f"{p.run_id}:{p.version}" for p in promotions]
    rows = []
    for version in versions:
        name = f"{version.run_id}:{version.version}"
        state = "now" if promoted[-1:] == [name] else "before" if name in promoted else ""
        rows.append(
            VersionRow(
                name=name,
                run=version.run_id,
                version=version.version,
                parent=_parent(version, versions),
                phase=version.phase,
                made=version.created_at,
                metrics=tuple(metric(version.metrics, key) for key in _METRICS),
                fits=tuple(_fit(device, report) for device, report in version.fit.items()),
                sites=tuple(sorted(site for site, served in serves.items() if served == name)),
                promoted=state,
                card=version.card_sha256,
                folder=version.folder,
            )
        )
    return rows


def _parent(version: ModelVersion, listed: Sequence[ModelVersion]) -> str:
    """What a version was trained from; not every round of a run need make a version."""
    earlier = [v.version for v in listed if v.run_id == version.run_id]
    before = max((n for n in earlier if n < version.version), default=version.version - 1)
    return f"version {before}" if before else "new weights"


def metric(metrics: dict[str, Any], key: str) -> Cell:
    """A metric of the validation lesions as a version's card has it, with its interval."""
    value = mapping(mapping(metrics.get("validation")).get(key))
    try:
        return estimate(Estimate(**value))
    except (TypeError, ValueError):  # not reported, or by another version of this program
        return Cell(DASH, "not reported", number=True)


def _fit(device: str, report: Any) -> Fit:
    values = mapping(report)
    if not values.get("fits"):
        return Fit(device, False, str(values.get("reason") or "no reason given"))
    n_bytes = whole(values.get("program_bytes"))
    parts = [f"{values['nps']} NPs" if whole(values.get("nps")) is not None else ""]
    parts.append(size(n_bytes) if n_bytes is not None else "")
    return Fit(device, True, ", ".join(filter(None, parts)))


def _promotion(excerpts: Excerpts, promotion: Promotion, runs: list[Run]) -> PromotionRow:
    delivery = delivery_of(promotion, runs)
    updates = excerpts.outcomes([delivery.run_id]) if delivery else []
    return PromotionRow(
        at=promotion.at,
        name=f"{promotion.run_id}:{promotion.version}",
        run=promotion.run_id,
        action="rolled back to" if promotion.action == "rollback" else "promoted",
        outcome=outcome(updates) if delivery else "no delivery has begun",
        delivery=delivery.run_id if delivery else "",
    )
