"""One record of every kind, with values that databases like to change."""

from datetime import UTC, datetime, timedelta, timezone

from server.history.records import (
    EdgeUpdate,
    ModelVersion,
    Round,
    Run,
    RunRecord,
    Site,
    SiteResult,
)
from server.history.store import History

START = datetime(2025, 3, 30, 1, 59, 59, 123457, tzinfo=UTC)


def example_run(run_id: str = "run-1", created_at: datetime = START) -> Run:
    return Run(
        run_id=run_id,
        created_at=created_at,
        state="running",
        seed=2**62,
        strategy="FedAvg",
        data="synthetic",
        folder="out/räume & más",
        classes=("nv", "mel"),
        plan={"rounds": 3, "rate": 0.1, "nested": {"b": [1, None, True], "a": "ü 😀"}},
        software={"flwr": "1.41.0"},
    )


def example_record() -> RunRecord:
    """A record as `load_record` gives it back, without its events."""
    elsewhere = START.astimezone(timezone(timedelta(hours=2)))
    return RunRecord(
        run=example_run(),
        sites=[
            Site("run-1", "berlin", True, "", 100, 20, 30),
            Site("run-1", "wien", False, "other-protocol", 0, 0, 0),
        ],
        rounds=[
            Round("run-1", 1, "float", elsewhere, elsewhere, 2, 1, {"train": 1.5}),
            Round("run-1", 2, "qat", START, None, 2, 0),
        ],
        site_results=[
            SiteResult("run-1", 1, "berlin", "train", True, "", 0.1, 2**40, 7, {"loss": 0.1 + 0.2}),
            SiteResult("run-1", 1, "wien", "train", False, "not-finite", 3.0, 10, 0),
            SiteResult("run-1", 2, "berlin", "evaluate", True, "", 2.0, 1, 1, {"global": {}}),
        ],
        versions=[
            ModelVersion("run-1", 1, "float", START, "out/1", "ab" * 32, {"AKD1000": {"nps": 7}}),
        ],
        edge_updates=[
            EdgeUpdate(
                "run-1", 1, "berlin", 1, True, "", 4, {"power_mw": None, "new_classes": ["df"]}
            ),
            EdgeUpdate("run-1", 1, "wien", 1, False, "worse", 0, {"agreement": {"images": 9}}),
        ],
        events=[],
    )


def save_all(history: History, record: RunRecord) -> None:
    history.save_run(record.run)
    for site in record.sites:
        history.save_site(site)
    for round_ in record.rounds:
        history.save_round(round_)
    for result in record.site_results:
        history.save_site_result(result)
    for version in record.versions:
        history.save_model_version(version)
    for edge_update in record.edge_updates:
        history.save_edge_update(edge_update)
