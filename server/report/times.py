"""What the report says of the run's time: per round and step, and what it went into."""

from server.history.records import RunRecord
from server.report.view import DASH, Cell, Section, Table, count, duration, words
from server.step_times import steps_of, where_time_went


def time_section(record: RunRecord) -> Section | None:
    """Wall time per round and step, and where it went; None before the first round."""
    if not record.rounds:
        return None
    went = where_time_went(r.seconds for r in record.rounds)
    tables = [_per_round(record)]
    if not went:
        return Section("Time", tables=tables)
    text = (
        "Sites count as at work for as long as they say that they were, and those that are at the "
        "same time count once. Messages and waiting is the rest of the time until the last of them "
        "has answered: packing, sending and checking messages, reading of a site's data."
    )
    return Section("Time", [text], tables=[_where(went), *tables])


def _where(went: dict[str, float]) -> Table:
    whole = sum(went.values())
    rows = [
        [
            words(what),
            Cell(duration(seconds), number=True),
            Cell(f"{100 * seconds / whole:.1f} %" if whole else DASH, number=True),
        ]
        for what, seconds in went.items()
    ]
    total = [words("all steps of all rounds"), Cell(duration(whole), number=True), words("")]
    return Table("Where the time went", ["what", "time", "share"], [*rows, total])


def _per_round(record: RunRecord) -> Table:
    steps = list(dict.fromkeys(step for r in record.rounds for step in steps_of(r.seconds)))
    rows = []
    for r in record.rounds:
        wall = (r.finished_at - r.started_at).total_seconds() if r.finished_at else None
        rows.append(
            [
                count(r.number),
                words(r.phase),
                Cell(f"{r.sites_aggregated} of {r.sites_asked}", number=True),
                *(
                    Cell(duration(r.seconds[step]) if step in r.seconds else DASH, number=True)
                    for step in steps
                ),
                Cell("not finished" if wall is None else duration(wall), number=True),
            ]
        )
    return Table(
        "Wall time per round and step",
        ["round", "phase", "sites aggregated", *steps, "whole round"],
        rows,
        folded=len(rows) > 12,
    )
