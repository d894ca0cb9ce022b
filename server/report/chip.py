"""What the report says of the chip: the program's fit, and what the edge clients did with it."""

from typing import Any

from server.history.records import EdgeUpdate, ModelVersion, RunRecord
from server.report.readings import mapping, mean_spikes, new_classes, whole
from server.report.view import Cell, Section, Table, count, moment, size, words

_FIT_COLUMNS = {
    "fits": "fits",
    "reason": "reason",
    "layers": "layers",
    "nps": "neural processors",
    "nps_by_type": "by type",
    "passes": "passes",
    "program_bytes": "program size",
    "macs": "MACs per image",
    "external_memory": "external memory",
}


def program_section(record: RunRecord) -> Section | None:
    """How the newest program fits each device, its spikes, and all versions."""
    versions = record.versions
    if not versions:
        return None
    tables = []
    fitted = [v for v in versions if v.fit]
    if fitted:
        tables += _fit_tables(fitted[-1])
    version, spikes = mean_spikes(record)
    if spikes:
        tables.append(
            Table(
                f"Mean spikes per image and layer, version {version}",
                ["layer", "mean spikes"],
                [[words(layer), _value(mean)] for layer, mean in spikes.items()],
                folded=True,
            )
        )
    tables.append(
        Table(
            "Model versions",
            ["version", "phase", "made", "maps on", "card (sha256)"],
            [
                [
                    count(v.version),
                    words(v.phase),
                    words(moment(v.created_at)),
                    words(", ".join(d for d, fit in v.fit.items() if mapping(fit).get("fits"))),
                    words(v.card_sha256[:16]),
                ]
                for v in versions
            ],
            folded=len(versions) > 8,
        )
    )
    text = (
        [
            "The program is mapped on virtual devices: that shows whether and how it fits, "
            "not how fast it runs."
        ]
        if fitted
        else ["No fit on a device was reported."]
    )
    return Section("The program on the chip", text, tables=tables)


def _fit_tables(version: ModelVersion) -> list[Table]:
    reports = {device: mapping(report) for device, report in version.fit.items()}
    hidden = {"layers_table", "device"}
    keys = [key for key in _FIT_COLUMNS if any(key in report for report in reports.values())]
    keys += sorted({k for r in reports.values() for k in r} - set(keys) - hidden)
    tables = [
        Table(
            f"Fit of version {version.version} per device",
            ["device", *(_FIT_COLUMNS.get(key, key.replace("_", " ")) for key in keys)],
            [
                [words(device), *(_fit_value(key, report.get(key)) for key in keys)]
                for device, report in reports.items()
            ],
        )
    ]
    for device, report in reports.items():
        layers = report.get("layers_table")
        rows = [mapping(layer) for layer in layers] if isinstance(layers, list) else []
        columns = list(dict.fromkeys(key for row in rows for key in row))
        if columns:
            tables.append(
                Table(
                    f"Layers of version {version.version} on {device}",
                    [column.replace("_", " ") for column in columns],
                    [[_value(row.get(column)) for column in columns] for row in rows],
                    folded=True,
                )
            )
    return tables


def _fit_value(key: str, value: Any) -> Cell:
    n_bytes = whole(value)
    if key in ("program_bytes", "external_memory") and n_bytes is not None:
        return Cell(size(n_bytes), number=True)
    return _value(value)


def _value(value: Any) -> Cell:
    """A JSON value of a kind that is not known beforehand."""
    if isinstance(value, bool):
        return words("yes" if value else "no")
    if isinstance(value, int):
        return count(value)
    if isinstance(value, float):
        return Cell(f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}", number=True)
    if isinstance(value, list):
        return words(" x ".join(str(part) for part in value))
    if isinstance(value, dict):
        return words(", ".join(f"{key} {part}" for key, part in value.items()))
    return words(value)


def _outcome(update: EdgeUpdate) -> str:
    if not update.switched:
        return "kept the old version"
    return "switched over, fine-tuned" if update.fine_tuned else "switched over"


def updates_section(record: RunRecord) -> Section | None:
    """Which versions the sites took into service, and what they learned."""
    updates = record.edge_updates
    if not updates:
        return None
    kept = [u for u in updates if not u.switched]
    rows = [
        [
            count(u.round),
            words(u.site),
            count(u.version),
            Cell(_outcome(u), u.reason),
            count(u.cases_learned),
            words(", ".join(new_classes(u))),
            words(u.result.get("backend")),
        ]
        for u in updates
    ]
    columns = ["round", "site", "version", "outcome", "cases learned", "new classes", "backend"]
    text = (
        f"Of {len(updates)} new versions that arrived at a site, {len(updates) - len(kept)} went "
        f"into service there; for {len(kept)} the site kept the one it had."
    )
    if own := sum(u.switched and u.fine_tuned for u in updates):
        text += (
            f" Of those in service the sites fine-tuned {own} for themselves; there the chip's "
            "head and both heads are of that program, all other numbers of the coordinator's."
        )
    tables = []
    if kept:
        kept_rows = [row for row, u in zip(rows, updates, strict=True) if not u.switched]
        tables.append(Table("Versions that a site did not take into service", columns, kept_rows))
    tables.append(Table("All updates of the edge clients", columns, rows, folded=True))
    return Section("New versions at the sites", [text], tables=tables)
