"""What the page of one run says: rounds, reports, metrics, figures, troubles, events."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from common.metrics import ScoreCounts, balanced_accuracy, summarize
from server.dashboard.drawing import FIGURES, shown
from server.dashboard.live import Badge, runs_under_way
from server.dashboard.models_page import metric
from server.dashboard.pages import RUN_STATES, WARNINGS, server_option
from server.dashboard.source import Source
from server.history.records import EdgeUpdate, Round, RunRecord, SiteResult
from server.report.content import facts
from server.report.readings import (
    HEADS,
    HeadCounts,
    class_codes,
    is_final,
    new_classes,
    pooled,
    site_names,
    step_counts,
    traffic,
    whole,
)
from server.report.view import Cell, Table, count, duration, estimate, size, words
from server.run_control import run_names

_STEPS = ("handshake", "train", "balance", "evaluate", "deploy", "share", "final")
_EVENTS_SHOWN = 15
_WARNINGS_SHOWN = 10
_METRIC_COLUMNS = (
    "accuracy",
    "balanced accuracy",
    "macro-F1",
    "AUC (macro)",
    "melanoma sens. at 90 % spec.",
    "melanoma sens. at 95 % spec.",
)


@dataclass(frozen=True)
class RoundRow:
    """One line of the table of rounds."""

    number: int
    phase: str
    sites: str
    loss: str
    accuracy: Cell
    took: str
    down: str
    up: str


@dataclass(frozen=True)
class Report:
    """What one site reported for one step."""

    site: str
    step: str
    badge: Badge
    said: str
    took: str
    moved: str


def run_page(source: Source, name: str, chosen: int | None) -> dict[str, Any]:
    """One run; ``chosen`` is the round of which the reports are shown, by default the newest."""
    superlink = source.superlink()
    with source.open() as excerpts:
        held = source.record(excerpts, name)
        record = held.record
        run_id = record.run.run_id
        under_way, _ = runs_under_way(source, excerpts, superlink)
        warnings = excerpts.events(run_id, _WARNINGS_SHOWN + 1, None, WARNINGS)
        latest = excerpts.events(run_id, _EVENTS_SHOWN + 1)
    live = next((run for run in under_way if run.run == run_id), None)
    numbers = sorted({r.round for r in record.site_results} | {r.number for r in record.rounds})
    numbers = [number for number in numbers if number > 0]
    number = chosen if chosen in numbers else (numbers[-1] if numbers else None)
    badge = RUN_STATES.get(record.run.state, Badge(record.run.state, "idle"))
    own = run_id in run_names(source.folder)
    if record.run.state == "running" and own and live is None:
        badge = Badge("not ended", "warn")
    return {
        "page": "runs",
        "run": record.run,
        "mark": held.mark,
        "badge": live.badge if live else badge,
        "is_delivery": record.run.is_delivery,
        "live": live,
        "own": own,
        "facts": facts(record),
        "sites": record.sites,
        "left_out": [site for site in record.sites if not site.accepted],
        "figures": [(n, FIGURES[n]) for n in held.once("figures", shown)],
        "rounds": held.once("rounds", round_rows)[::-1],
        "numbers": numbers,
        "number": number,
        "reports": [] if number is None else reports(record, number),
        "metrics": held.once("metrics", site_metrics),
        "warnings": warnings[:_WARNINGS_SHOWN],
        "more_warnings": len(warnings) > _WARNINGS_SHOWN,
        "events": latest[:_EVENTS_SHOWN],
        "more_events": len(latest) > _EVENTS_SHOWN,
        "kinds_of_warnings": WARNINGS,
        "server": server_option(source),
    }


def round_rows(record: RunRecord) -> list[RoundRow]:
    """The rounds in order, the present one as far as it has come."""
    evaluated = step_counts(record, "evaluate", "global")
    metrics = {v.version: v.metrics for v in record.versions}
    bytes_of = traffic(record)
    rows = []
    for round_ in record.rounds:
        moved = bytes_of.get(round_.number, {}).values()
        rows.append(
            RoundRow(
                number=round_.number,
                phase=round_.phase,
                sites=f"{round_.sites_aggregated} of {round_.sites_asked}",
                loss=_loss(r for r in record.site_results if r.round == round_.number),
                accuracy=_accuracy(metrics.get(round_.number, {}), evaluated.get(round_.number)),
                took=_took(round_),
                down=size(sum(down for down, _ in moved)),
                up=size(sum(up for _, up in moved)),
            )
        )
    return rows


def _loss(results: Iterable[SiteResult]) -> str:
    """Loss of all sites together, each by its cases."""
    pairs = [
        (r.result["loss"], r.result["examples"])
        for r in results
        if r.step == "train" and r.accepted and {"loss", "examples"} <= r.result.keys()
    ]
    numbers = [(x, n) for x, n in pairs if isinstance(x, int | float) and whole(n)]
    total = sum(n for _, n in numbers)
    return f"{sum(x * n for x, n in numbers) / total:.3f}" if total else "–"


def _accuracy(metrics: dict[str, Any], evaluated: dict[str, ScoreCounts] | None) -> Cell:
    """As the round's card has it; before there is one, and for older cards, from the counts."""
    if metrics.get("validation"):
        return metric(metrics, "balanced_accuracy")
    if not evaluated:
        return Cell("–", number=True)
    counts = pooled(evaluated)
    value = balanced_accuracy(counts)
    text = "–" if value is None else f"{value:.3f}"
    return Cell(text, f"n = {counts.n:,}", number=True)


def _took(round_: Round) -> str:
    if round_.finished_at is None:
        return "not finished"
    return duration((round_.finished_at - round_.started_at).total_seconds())


def reports(record: RunRecord, number: int) -> list[Report]:
    """What each site reported in a round, by site and in the order of the steps."""
    updates = {u.site: u for u in record.edge_updates if u.round == number}
    own = [r for r in record.site_results if r.round == number]
    own.sort(key=lambda r: (r.site, _STEPS.index(r.step) if r.step in _STEPS else 0))
    return [
        Report(
            site=r.site,
            step=r.step,
            badge=Badge("accepted", "ok") if r.accepted else Badge("refused", "bad"),
            said=_said(r, updates.get(r.site)) if r.accepted else r.reason,
            took=f"{r.seconds:.1f} s",
            moved=f"{size(r.bytes_down)} / {size(r.bytes_up)}",
        )
        for r in own
    ]


def _said(result: SiteResult, update: EdgeUpdate | None) -> str:
    match result.step:
        case "train":
            loss, examples = result.result.get("loss"), whole(result.result.get("examples"))
            if isinstance(loss, int | float) and examples is not None:
                return f"loss {loss:.3f} over {examples:,} cases"
        case "evaluate":
            return _judged(result.result.get("global"), "network")
        case "final":
            return _judged(result.result.get("akida"), "Akida program")
        case "share":
            adopted = whole(result.result.get("adopted"))
            return "" if adopted is None else f"{adopted} neurons of other sites taken over"
        case "deploy" if update is not None:
            return _deployed(update)
    return ""


def _judged(value: Any, what: str) -> str:
    try:
        counts = ScoreCounts.from_json(value)
    except ValueError:
        return ""
    reached = balanced_accuracy(counts)
    shown_value = "too few cases" if reached is None else f"{reached:.3f}"
    return f"balanced accuracy of the {what} {shown_value} ({counts.n:,} cases)"


def _deployed(update: EdgeUpdate) -> str:
    text = "switched over" if update.switched else f"kept its version ({update.reason})"
    if update.switched and update.fine_tuned:
        text += ", fine-tuned there"
    if update.cases_learned:
        text += f"; {update.cases_learned} new cases learned on the chip"
    met = new_classes(update)
    return text + (f"; new: {', '.join(met)}" if met else "")


def site_metrics(record: RunRecord) -> Table | None:
    """Metrics per site: of the program on test lesions once there are, else of the last round."""
    head = _latest(record)
    if head is None:
        return None
    codes = class_codes(record, head.pooled)
    names = [name for name in site_names(record) if name in head.by_site]
    rows = [_metrics_row("all sites", head.pooled, codes)]
    rows += [_metrics_row(name, head.by_site[name], codes) for name in names]
    where = "test lesions" if is_final(record) else f"validation lesions of round {head.round}"
    named = HEADS.get(head.head, "global network")
    caption = f"{named[0].upper()}{named[1:]} on {where}"
    return Table(caption, ["site", "cases", *_METRIC_COLUMNS], rows)


def _latest(record: RunRecord) -> HeadCounts | None:
    if is_final(record):
        for head in ("symmetries", "combined", "akida", *HEADS):  # what sites answer, if known
            found = step_counts(record, "final", head)
            if found:
                number = max(found)
                return HeadCounts(head, number, found[number])
    evaluated = step_counts(record, "evaluate", "global")
    return HeadCounts("", max(evaluated), evaluated[max(evaluated)]) if evaluated else None


def _metrics_row(name: str, counts: ScoreCounts, codes: tuple[str, ...]) -> list[Cell]:
    s = summarize(counts, codes)
    overall = (s.accuracy, s.balanced_accuracy, s.macro_f1, s.macro_auc)
    found = (*overall, s.melanoma_sensitivity, s.melanoma_sensitivity_95)
    return [words(name), count(counts.n), *(estimate(value) for value in found)]
