"""What the report says of the model: how good each head is, and what learning changed."""

from typing import Any

from common.metrics import MetricSummary, summarize
from common.referral_curve import SHARES, curve_of_counts
from server.history.records import RunRecord
from server.plan import setting_shown
from server.report import figures
from server.report.operations import operation_sections
from server.report.readings import (
    HEADS,
    HeadCounts,
    Tally,
    agreement,
    class_codes,
    edge_counts,
    forgetting,
    head_counts,
    is_final,
    site_names,
    step_counts,
)
from server.report.view import (
    DASH,
    Cell,
    Picture,
    Section,
    Table,
    count,
    duration,
    estimate,
    moment,
    share,
    words,
)

_METRIC_COLUMNS = (
    "accuracy",
    "balanced accuracy",
    "macro-F1",
    "AUC (macro)",
    "melanoma sens. at 90 % spec.",
    "at 95 % spec.",
)
_STATES = {
    "running": "This run has not finished",
    "stopped": "This run was stopped before it finished",
    "failed": "This run failed",
}


def facts(record: RunRecord) -> list[tuple[str, str]]:
    """Names and values that identify the run, for the report's head."""
    run = record.run
    took = (run.finished_at - run.created_at).total_seconds() if run.finished_at else None
    return [
        ("state", f"{run.state}: {run.reason}" if run.reason else run.state),
        ("started", moment(run.created_at)),
        ("finished", moment(run.finished_at) + (f" (took {duration(took)})" if took else "")),
        ("data", run.data),
        ("sites", f"{sum(s.accepted for s in record.sites)} taking part"),
        ("classes", ", ".join(run.classes)),
        ("strategy", run.strategy),
        ("seed", str(run.seed)),
        ("plan", _listing(run.plan)),
        ("software", ", ".join(f"{name} {version}" for name, version in run.software.items())),
        ("folder", run.folder),
    ]


def sections(record: RunRecord) -> list[Section]:
    """Every section of the report, in reading order; those without any content are left out."""
    heads = head_counts(record)
    codes = class_codes(record, *(h.pooled for h in heads))
    summaries = [summarize(head.pooled, codes) for head in heads]
    found = [
        _headline(record, heads, summaries),
        _curves(record),
        _referral(record, heads),
        _per_class(record, heads, summaries, codes),
        _confusions(heads, codes),
        _per_site(record, heads, codes),
        _forgetting(record),
        _agreement(record),
    ]
    return [section for section in found if section is not None] + operation_sections(record)


def _listing(plan: dict[str, Any]) -> str:
    return ", ".join(f"{name} {setting_shown(name, value)}" for name, value in plan.items())


def _source(record: RunRecord, head: HeadCounts) -> str:
    kind = "test lesions" if is_final(record) else f"validation lesions of round {head.round}"
    return f"{kind}, {len(head.by_site)} site{'s' if len(head.by_site) > 1 else ''}"


def _picture(figure: Any, alt: str, caption: str) -> Picture:
    return Picture(figures.svg_data_uri(figure), alt, caption)


def _headline(
    record: RunRecord, heads: list[HeadCounts], summaries: list[MetricSummary]
) -> Section:
    title = "From the float network to the chip"
    if is_final(record):
        text = ["All sites' held-back test lesions together, judged by the final model."]
    else:
        state = _STATES.get(record.run.state, "This run has no final test")
        text = [
            f"{state}: no site has judged a final model on its test lesions yet. The numbers "
            "below come from validation lesions, on which model versions are also compared, so "
            "they may look better than a test would."
        ]
    if not heads:
        return Section(title, [*text, "No site has reported an evaluation yet."])
    text.append(
        "Each number stands with its 95 % interval and the number of cases n that it rests on. "
        "AUC and sensitivity come from binned scores."
    )
    rows = [
        [Cell(HEADS[head.head], _source(record, head)), *_metric_cells(summary)]
        for head, summary in zip(heads, summaries, strict=True)
    ]
    picture = _picture(
        figures.heads_figure(record),
        "Headline metrics of each head with intervals; the numbers are in the table.",
        "Headline metrics with their 95 % intervals.",
    )
    table = Table("Pooled metrics of each form of the model", ["head", *_METRIC_COLUMNS], rows)
    return Section(title, text, [picture], [table])


def _metric_cells(summary: MetricSummary) -> list[Cell]:
    return [
        estimate(summary.accuracy),
        estimate(summary.balanced_accuracy),
        estimate(summary.macro_f1),
        estimate(summary.macro_auc),
        estimate(summary.melanoma_sensitivity),
        estimate(summary.melanoma_sensitivity_95),
    ]


def _curves(record: RunRecord) -> Section | None:
    by_round = step_counts(record, "evaluate", "global")
    if not by_round:
        return None
    akida = edge_counts(record, "akida")
    codes = class_codes(record)
    rows = []
    for number, by_site in by_round.items():
        head = summarize(HeadCounts("", number, by_site).pooled, codes).balanced_accuracy
        program = (
            summarize(HeadCounts("", number, akida[number]).pooled, codes).balanced_accuracy
            if number in akida
            else None
        )
        rows.append(
            [
                count(number),
                words(next((r.phase for r in record.rounds if r.number == number), None)),
                count(len(by_site)),
                estimate(head),
                estimate(program) if program else Cell(DASH, "no program judged", number=True),
            ]
        )
    picture = _picture(
        figures.learning_curves(record),
        "Balanced accuracy over the rounds, per site and pooled; pooled numbers are in the table.",
        "Balanced accuracy on validation lesions. A site's curve has a gap where it has too few "
        "cases; the dotted line is the switch to quantization-aware training.",
    )
    table = Table(
        "Balanced accuracy of all sites together, per round",
        ["round", "phase", "sites", "global head", "Akida program"],
        rows,
        folded=len(rows) > 8,
    )
    discarded = [str(e.round) for e in record.events if e.kind == "round-discarded"]
    text = [
        f"Discarded, because the combined network could not be converted: round "
        f"{', '.join(discarded)}. The global head shown there is that network's; the program is "
        "that of the version before."
    ]
    return Section("Learning curves", text if discarded else [], [picture], [table])


def _referral(record: RunRecord, heads: list[HeadCounts]) -> Section | None:
    if not heads:
        return None
    curves = [curve_of_counts(head.pooled) for head in heads]
    rows = [
        [words(f"{share:.0%}"), *(estimate(curve[place]) for curve in curves)]
        for place, share in enumerate(SHARES)
    ]
    picture = _picture(
        figures.referral_figure(record),
        "Accuracy of the answers that are left over the share of cases that is referred.",
        "The less confident a head is of a case, the sooner the case goes to a person. The band is "
        "the 95 % interval of the last head.",
    )
    table = Table(
        "Accuracy of the answers that are left when the least confident are referred",
        ["referred", *(HEADS[head.head] for head in heads)],
        rows,
        folded=True,
    )
    text = [
        "From the counts of all sites together, by each head's own probabilities before a site "
        "calibrates them. Counts tell the order of answers with a probability above one half; "
        'beyond those the curve is a straight line to all cases ("interpolated").'
    ]
    return Section("Referring the unsure cases", text, [picture], [table])


def _per_class(
    record: RunRecord,
    heads: list[HeadCounts],
    summaries: list[MetricSummary],
    codes: tuple[str, ...],
) -> Section | None:
    if not heads:
        return None
    columns = ["class", *(HEADS[head.head] for head in heads)]
    recall = [[words(code), *(estimate(s.recall[code]) for s in summaries)] for code in codes]
    auc = [[words(code), *(estimate(s.auc[code]) for s in summaries)] for code in codes]
    where = "test" if is_final(record) else "validation"
    return Section(
        "Per class",
        tables=[
            Table(f"Recall per class on {where} lesions, all sites", columns, recall),
            Table(f"AUC of each class against the rest, {where} lesions", columns, auc, True),
        ],
    )


def _confusions(heads: list[HeadCounts], codes: tuple[str, ...]) -> Section | None:
    pictures = [
        _picture(
            figures.confusion_figure(head.pooled.padded(len(codes)), codes, HEADS[head.head]),
            f"Confusion matrix of the {HEADS[head.head]}.",
            f"{HEADS[head.head].capitalize()}: {head.pooled.n:,} cases of all sites.",
        )
        for head in heads
        if head.head in ("akida", "chip", heads[-1].head)
    ]
    return Section("Confusion matrices", [], pictures) if pictures else None


def _per_site(record: RunRecord, heads: list[HeadCounts], codes: tuple[str, ...]) -> Section | None:
    tables = []
    for head in heads:
        rows = [
            [words(name), count(counts.n), *_metric_cells(summarize(counts, codes))]
            for name in site_names(record)
            if (counts := head.by_site.get(name)) is not None
        ]
        caption = f"{HEADS[head.head].capitalize()}, {_source(record, head)}"
        tables.append(Table(caption, ["site", "cases", *_METRIC_COLUMNS], rows, True))
    return Section("Per site", tables=tables) if tables else None


def _forgetting(record: RunRecord) -> Section | None:
    tallies = forgetting(record)
    if not tallies:
        return None
    rows = []
    for number, tally in tallies.items():
        cells = [count(number)]
        for kind in ("old", "new"):
            before = tally.get(f"{kind}_before", Tally())
            after = tally.get(f"{kind}_after", Tally())
            cells += [share(before.correct, before.n), share(after.correct, after.n)]
            change = (
                f"{100 * (after.correct / after.n - before.correct / before.n):+.1f}"
                if before.n and after.n
                else DASH
            )
            cells.append(Cell(change, number=True))
        rows.append(cells)
    picture = _picture(
        figures.forgetting_figure(record),
        "Accuracy of the chip head before and after learning; the numbers are in the table.",
        "Chip head on held-back cases, all sites together, before and after it learned the "
        "cases that arrived after each round.",
    )
    columns = ["round"]
    for kind in ("known classes", "new classes"):
        columns += [f"{kind}: before", "after", "change (points)"]
    return Section(
        "Learning on the chip and forgetting",
        [
            "A fall on the known classes is what learning the new cases made the chip head forget. "
            "Known are the classes that the run started with; a site has the others from the "
            "round on in which a case of them arrives there, or after which the global model "
            "has them."
        ],
        [picture],
        [Table("Accuracy of the chip head before and after the new cases", columns, rows)],
    )


def _agreement(record: RunRecord) -> Section | None:
    totals = agreement(record)
    if not totals:
        return None
    rows = [
        [
            words(where),
            share(total["equal_spikes"], total["spikes"], 2),
            share(total["equal_predictions"], total["images"], 2),
        ]
        for where, total in totals.items()
    ]
    return Section(
        "Conversion",
        [
            "How often the converted Akida program and the quantized network it was made from "
            "give the same spikes, and the same class, on the same images at the sites."
        ],
        tables=[
            Table(
                "Agreement of the Akida program with the quantized network",
                ["version", "equal spikes", "equal predictions"],
                rows,
            )
        ],
    )
