"""Runs and their records as tables in a terminal."""

from collections import defaultdict
from datetime import datetime

from common.metrics import Estimate
from server.commands.terminal import plain_console, print_table
from server.comparison import ComparedHead, HeadSpread, Spread
from server.history.records import EdgeUpdate, Round, RunRecord, RunSummary
from server.plan import setting_shown
from server.report.readings import new_classes
from server.step_times import steps_of, where_time_went

_LAST_EVENTS = 12


def print_summaries(summaries: list[RunSummary]) -> None:
    """Print one line per run."""
    rows = [
        [
            summary.run.run_id,
            _moment(summary.run.created_at),
            summary.run.state,
            summary.run.strategy,
            f"{summary.sites_accepted} of {summary.sites}",
            str(summary.rounds_finished),
            summary.run.data,
        ]
        for summary in summaries
    ]
    print_table("", ["run", "started", "state", "strategy", "sites", "rounds done", "data"], rows)


def print_comparison(rows: list[ComparedHead]) -> None:
    """Print one line per run and head: value and 95 % interval of each metric."""
    metrics = list(rows[0].metrics) if rows else []
    print_table(
        "Test lesions, value and 95 % interval",
        ["run", "head", "n", *metrics],
        [
            [row.run, row.head, str(row.n), *(_estimate(row.metrics[name]) for name in metrics)]
            for row in rows
        ],
    )


def print_spread(rows: list[HeadSpread]) -> None:
    """Print one line per head: mean and standard deviation of each metric over the runs."""
    metrics = list(rows[0].metrics) if rows else []
    print_table(
        "Test lesions, mean ± standard deviation over runs",
        ["head", "runs", *metrics],
        [
            [row.head, str(row.runs), *(_mean(row.metrics[name]) for name in metrics)]
            for row in rows
        ],
    )


def _mean(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    deviation = "" if spread.deviation is None else f" ± {spread.deviation:.3f}"
    return f"{spread.mean:.3f}{deviation}"


def _estimate(estimate: Estimate | None) -> str:
    if estimate is None or estimate.value is None:
        return estimate.note if estimate else "-"
    return f"{estimate.value:.3f} ({estimate.low:.3f}-{estimate.high:.3f})"


def print_record(record: RunRecord) -> None:
    """Print everything known of one run, of the events the last ones only."""
    _print_run(record)
    print_table(
        "Sites",
        ["site", "in the run", "training", "validation", "test"],
        [
            [
                site.name,
                "yes" if site.accepted else f"no: {site.reason}",
                str(site.n_train),
                str(site.n_validation),
                str(site.n_test),
            ]
            for site in record.sites
        ],
    )
    print_table(
        "Rounds",
        ["round", "phase", "sites in", "seconds", "of which"],
        [_round_row(round_) for round_ in record.rounds],
    )
    went = where_time_went(round_.seconds for round_ in record.rounds)
    whole = sum(went.values())
    if whole:
        print_table(
            "Where the time went",
            ["what", "seconds", "share"],
            [[what, f"{s:.1f}", f"{100 * s / whole:.1f} %"] for what, s in went.items()],
        )
    print_table("Replies", ["site", "accepted", "not accepted"], _reply_rows(record))
    print_table(
        "Model versions",
        ["version", "phase", "made", "mapped for", "folder"],
        [
            [str(v.version), v.phase, _moment(v.created_at), ", ".join(v.fit), v.folder]
            for v in record.versions
        ],
    )
    print_table(
        "Edge updates",
        ["round", "site", "version", "in service", "cases learned", "new classes"],
        [
            [
                str(u.round),
                u.site,
                str(u.version),
                _in_service(u),
                str(u.cases_learned),
                ", ".join(new_classes(u)),
            ]
            for u in record.edge_updates
        ],
    )
    shown = record.events[-_LAST_EVENTS:]
    print_table(
        f"Events (last {len(shown)} of {len(record.events)})",
        ["at", "kind", "round", "site", "message"],
        [
            [
                _moment(e.at),
                e.kind,
                "" if e.round is None else str(e.round),
                e.site or "",
                e.message,
            ]
            for e in shown
        ],
    )


def _print_run(record: RunRecord) -> None:
    run = record.run
    console = plain_console()
    lines = {
        "run": run.run_id,
        "state": f"{run.state}: {run.reason}" if run.reason else run.state,
        "started": _moment(run.created_at),
        "finished": _moment(run.finished_at),
        "strategy": run.strategy,
        "seed": run.seed,
        "data": run.data,
        "folder": run.folder,
        "classes": ", ".join(run.classes),
    }
    lines |= {f"plan: {key}": setting_shown(key, value) for key, value in run.plan.items()}
    width = max(map(len, lines))
    for name, value in lines.items():
        console.print(f"{name:<{width}}  {value}")


def _round_row(round_: Round) -> list[str]:
    steps = steps_of(round_.seconds)
    return [
        str(round_.number),
        round_.phase,
        f"{round_.sites_aggregated} of {round_.sites_asked}",
        f"{sum(steps.values()):.1f}" if round_.finished_at else "not finished",
        ", ".join(f"{step} {seconds:.1f}" for step, seconds in steps.items()),
    ]


def _in_service(update: EdgeUpdate) -> str:
    if not update.switched:
        return f"no: {update.reason}"
    return "yes, fine-tuned" if update.fine_tuned else "yes"


def _reply_rows(record: RunRecord) -> list[list[str]]:
    accepted: dict[str, int] = defaultdict(int)
    refused: dict[str, list[str]] = defaultdict(list)
    for result in record.site_results:
        if result.accepted:
            accepted[result.site] += 1
        else:
            refused[result.site].append(f"round {result.round} {result.step}: {result.reason}")
    sites = sorted({*accepted, *refused})
    return [[site, str(accepted[site]), "; ".join(refused[site]) or "none"] for site in sites]


def _moment(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment else "not yet"
