"""What the report says of the run's operation: traffic, sites, time and events."""

from server.history.records import EdgeUpdate, RunRecord
from server.report import figures
from server.report.chip import program_section, updates_section
from server.report.readings import is_final, site_names, traffic
from server.report.times import time_section
from server.report.view import (
    DASH,
    Cell,
    Picture,
    Section,
    Table,
    count,
    moment,
    size,
    words,
)

EVENTS_SHOWN = 50


def operation_sections(record: RunRecord) -> list[Section]:
    """The sections on how the run went; those without any content are left out."""
    found = [
        program_section(record),
        updates_section(record),
        _traffic(record),
        _sites(record),
        time_section(record),
        _unmeasured(record),
        _events(record),
    ]
    return [section for section in found if section is not None]


def _traffic(record: RunRecord) -> Section | None:
    rounds = traffic(record)
    if not rounds:
        return None
    names = [n for n in site_names(record) if any(n in sites for sites in rounds.values())]
    picture = Picture(
        figures.svg_data_uri(figures.bytes_figure(record)),
        "Bytes per round and direction; the numbers are in the table.",
        "Message payloads of all sites together; round 0 is the handshake.",
    )
    totals = {
        name: [sum(s[name][way] for s in rounds.values() if name in s) for way in (0, 1)]
        for name in names
    }
    rows = [
        [words(name), Cell(size(down), number=True), Cell(size(up), number=True)]
        for name, (down, up) in totals.items()
    ]
    per_round = [
        [
            count(number),
            *(
                Cell(" / ".join(size(way) for way in sites[name]), number=True)
                if name in sites
                else Cell(DASH, number=True)
                for name in names
            ),
        ]
        for number, sites in rounds.items()
    ]
    return Section(
        "Bytes",
        ["Payloads of the messages as a site sees them, without the transport's own overhead."],
        [picture],
        [
            Table("Bytes per site, whole run", ["site", "to the site", "from the site"], rows),
            Table("Bytes to / from each site per round", ["round", *names], per_round, folded=True),
        ],
    )


def _sites(record: RunRecord) -> Section | None:
    if not record.sites:
        return None
    rows = [
        [
            words(s.name),
            Cell("takes part" if s.accepted else "left out", s.reason),
            count(s.n_train),
            count(s.n_validation),
            count(s.n_test),
        ]
        for s in record.sites
    ]
    columns = ["site", "handshake", "training", "validation", "test"]
    tables = [Table("Sites and their cases", columns, rows)]
    missed = [r for r in record.site_results if not r.accepted]
    if missed:
        tables.append(
            Table(
                "What a site missed, and why",
                ["round", "site", "step", "reason"],
                [[count(r.round), words(r.site), words(r.step), words(r.reason)] for r in missed],
                folded=len(missed) > 20,
            )
        )
        text = f"{len(missed)} step{'s' if len(missed) > 1 else ''} missed by a site."
    else:
        text = "No site missed a step."
    return Section("Sites", [text], tables=tables)


def _unmeasured(record: RunRecord) -> Section:
    rows = [
        _measurement(record.edge_updates, "latency_ms", "latency per image", "ms"),
        _measurement(record.edge_updates, "power_mw", "power", "mW"),
    ]
    if not is_final(record):
        rows.append(["final test", "not measured", "no site has reported its final test"])
    if not any(v.fit for v in record.versions):
        rows.append(["fit on the chip", "not measured", "no mapping was reported"])
    if not record.edge_updates:
        rows.append(["chip head, conversion", "not measured", "no site has run a program yet"])
    return Section(
        "What was not measured, and why",
        tables=[
            Table(
                "Measurements that need hardware or a later step",
                ["what", "value", "reason"],
                [[words(cell) for cell in row] for row in rows],
            )
        ],
    )


def _measurement(updates: list[EdgeUpdate], key: str, name: str, unit: str) -> list[str]:
    measured = [
        (u.site, u.result[key])
        for u in updates
        if isinstance(u.result.get(key), int | float) and not isinstance(u.result[key], bool)
    ]
    if measured:
        values = [value for _, value in measured]
        sites = len({site for site, _ in measured})
        return [
            name,
            f"{min(values):.3g} to {max(values):.3g} {unit}",
            f"measured on hardware at {sites} of {len({u.site for u in updates})} sites",
        ]
    backends = sorted({str(u.result["backend"]) for u in updates if u.result.get("backend")})
    ran = f"no Akida hardware, {', '.join(backends)}" if backends else "no program ran yet"
    return [name, "not measured", ran]


def _events(record: RunRecord) -> Section | None:
    if not record.events:
        return None
    shown = record.events[-EVENTS_SHOWN:]
    table = Table(
        f"The last {len(shown)} of {len(record.events)} events",
        ["time", "kind", "round", "site", "message"],
        [
            [words(moment(e.at)), words(e.kind), count(e.round), words(e.site), words(e.message)]
            for e in shown
        ],
        folded=True,
    )
    return Section("Events", tables=[table])
