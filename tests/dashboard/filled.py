"""A server's folder whose database holds runs, sites, a trail and promotions, as real ones do."""

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from common.keys import new_site_key, public_part
from common.metrics import ScoreCounts, summarize
from server.history.membership import Membership, open_membership
from server.history.records import EdgeUpdate, Event, ModelVersion, Run, RunRecord, Site, SiteResult
from server.history.store import History, open_history
from server.report.readings import pooled, step_counts
from server.run_control import Control, write_control
from server.server_settings import ServerFolder
from server.setting_up import set_up
from tests.history.examples import save_all
from tests.report.sample_record import SITES, complete, renamed

FINISHED, RUNNING, DELIVERY = "2026-spring", "2026-autumn", "delivery-20261120-101500"
ROUNDS = 6


def make_server(path: Path, superlink_port: int = 1, database: str = "") -> ServerFolder:
    """A new server's folder; nothing listens on port 1."""
    set_up(path, "fedqana.example.org:8443", None, superlink_port, 8001, database)
    return ServerFolder(path.resolve())


def shifted(record: RunRecord, run_id: str, start: datetime) -> RunRecord:
    """The record as another run's that began at ``start``, with metrics on its versions."""
    by = start - record.run.created_at

    def moved(value: Any) -> Any:
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        change = {n: v + by for n, v in fields.items() if isinstance(v, datetime)}
        return dataclasses.replace(value, run_id=run_id, **change)

    evaluated = step_counts(record, "evaluate", "global")
    parts = {
        name: [moved(value) for value in getattr(record, name)]
        for name in ("sites", "rounds", "site_results", "versions", "edge_updates", "events")
    }
    parts["versions"] = [
        dataclasses.replace(v, metrics={"validation": _summary(record.run, evaluated[v.version])})
        for v in parts["versions"]
    ]
    return dataclasses.replace(record, run=moved(record.run), **parts)


def _summary(run: Run, by_site: dict[str, ScoreCounts]) -> dict[str, Any]:
    return summarize(pooled(by_site), run.classes).to_json()


def under_way(record: RunRecord, number: int) -> RunRecord:
    """The record as it was when round ``number`` had been evaluated by all sites but the last."""
    rounds = [r for r in record.rounds if r.number <= number]
    started = datetime.now(UTC) - timedelta(seconds=75)
    rounds[-1] = dataclasses.replace(
        rounds[-1], started_at=started, finished_at=None, seconds={"train": 61.5}
    )
    results = [r for r in record.site_results if r.round < number]
    results += [r for r in record.site_results if r.round == number and r.step == "train"]
    return dataclasses.replace(
        record,
        run=dataclasses.replace(record.run, state="running", finished_at=None),
        rounds=rounds,
        site_results=results,
        versions=[v for v in record.versions if v.version < number],
        edge_updates=[u for u in record.edge_updates if u.round < number],
    )


def save(history: History, record: RunRecord) -> None:
    """Write a record with its events."""
    save_all(history, record)
    for event in record.events:
        add(history, event)


def add(history: History, event: Event) -> None:
    """Append an event."""
    history.add_event(event.run_id, event.kind, event.message, event.round, event.site)


def fill(folder: ServerFolder) -> None:
    """A finished run, one under way in round 4, a delivery; four sites and two others."""
    now = datetime.now(UTC)
    with open_membership(folder.database_url()) as members:
        _enrol(members)
    with open_history(folder.database_url()) as history:
        save(history, shifted(complete(), FINISHED, now - timedelta(days=9)))
        record = shifted(complete(), RUNNING, now - timedelta(minutes=8))
        save(history, under_way(record, 4))
        for kind, message, site in (
            (
                "reply-refused",
                "train: not-finite: weights hold values that are no numbers",
                SITES[1],
            ),
            ("kept-old-version", "version 1: worse-than-current", SITES[1]),
            ("class-registered", "'scc' gets index 7", SITES[0]),
        ):
            history.add_event(RUNNING, kind, message, 2, site)
        _deliver(history, now - timedelta(days=2))
    with open_membership(folder.database_url()) as members:
        members.promote(FINISHED, 4)
        members.promote(FINISHED, 6)
    start(folder, RUNNING, 4)


def start(folder: ServerFolder, run: str, number: int, **said: Any) -> None:
    """The files of a run that has come to the evaluation of round ``number``."""
    path = folder.runs / run
    path.mkdir(parents=True, exist_ok=True)
    (path / "plan.json").write_text("{}")
    write_control(folder, run, Control(flower_runs=["7"]))
    progress = {
        "run": run,
        "round": number,
        "rounds": ROUNDS,
        "phase": "float",
        "step": "evaluate",
        "message": f"waiting for {SITES[3]}, 240 s left",
        "done": False,
        "waiting": [SITES[3]],
        "left": 240.0,
        "at": datetime.now(UTC).isoformat(),
        "pid": 1,
    }
    (path / "progress.json").write_text(json.dumps({**progress, **said}))


def _enrol(members: Membership) -> None:
    for index, site in enumerate((*SITES, "clinic_north")):
        _, code = members.invite(site, 72)
        key = public_part(new_site_key())
        members.join(site, code, key, {"fedqana": "0.1.0"})
        if site in SITES:
            members.approve(site, str(1000 + index), key)
            members.heard(site)
    members.invite("clinic_south", 72)
    members.invite("clinic_west", 1e-9)
    _, code = members.invite("clinic_east", 72)
    members.join("clinic_east", code, public_part(new_site_key()), {})
    members.revoke("clinic_east")


def _deliver(history: History, at: datetime) -> None:
    data = f"delivery of {FINISHED}:6"
    run = dataclasses.replace(
        complete().run, run_id=DELIVERY, data=data, created_at=at, finished_at=at
    )
    history.save_run(run)
    for index, site in enumerate(SITES):
        history.save_site(Site(DELIVERY, site, True, "", 900, 150, 160))
        kept = index == 2
        reason = "worse-than-current" if kept else ""
        history.save_site_result(
            SiteResult(DELIVERY, 1, site, "deploy", True, "", 4.5, 1_100_000, 9_000)
        )
        history.save_edge_update(EdgeUpdate(DELIVERY, 1, site, 1, not kept, reason, 0))


MARKUP = "<script>window.hacked=1</script><img src=x onerror='window.hacked=1'>\"'{{7*7}}"
HOSTILE_RUN = "a<b>\"&'?#% ü"


def fill_hostile(folder: ServerFolder) -> None:
    """A server in which whatever a site, a plan or a person may have written is markup or long."""
    long = "x" * 400
    with open_membership(folder.database_url()) as members:
        for name in (MARKUP, "y" * 64):
            _, code = members.invite(name, 72)
            members.join(name, code, public_part(new_site_key()), {MARKUP: MARKUP})
            members.approve(name, f"1{MARKUP}", members.get(name).public_key)
        members.note(MARKUP, MARKUP, MARKUP, f"{MARKUP}{long}")
        members.note(long, long, long, long)
    record = renamed(complete(MARKUP), lambda site: f"{MARKUP}{site}" if site else "")
    record = shifted(record, HOSTILE_RUN, datetime.now(UTC) - timedelta(minutes=20))
    run = dataclasses.replace(
        record.run,
        state="running",
        finished_at=None,
        strategy=MARKUP,
        data=f"{MARKUP}{long}",
        folder=f"/{MARKUP}",
        reason=f"{MARKUP}{long}",
        plan={MARKUP: [MARKUP, long]},
        software={MARKUP: long},
    )
    refused = dataclasses.replace(
        record.site_results[-1], step="share", accepted=False, reason=f"{MARKUP}{long}"
    )
    fit = {MARKUP: {"fits": False, "reason": f"{MARKUP}{long}"}}
    record = dataclasses.replace(
        record,
        run=run,
        sites=[dataclasses.replace(s, accepted=False, reason=MARKUP) for s in record.sites],
        rounds=[dataclasses.replace(r, phase=MARKUP) for r in record.rounds],
        site_results=[*record.site_results, refused],
        versions=[
            dataclasses.replace(v, phase=MARKUP, folder=MARKUP, fit=fit) for v in record.versions
        ],
        edge_updates=[dataclasses.replace(u, reason=MARKUP) for u in record.edge_updates],
        events=[
            Event(0, HOSTILE_RUN, datetime.now(UTC), kind, f"{MARKUP}{long}", 1, MARKUP)
            for kind in (MARKUP, "reply-refused", long)
        ],
    )
    with open_history(folder.database_url()) as history:
        save(history, record)
    with open_membership(folder.database_url()) as members:
        members.promote(HOSTILE_RUN, 3, MARKUP)
    start(folder, "r", 2, phase=MARKUP, step=MARKUP, message=f"{MARKUP}{long}", waiting=[MARKUP])


def large(folder: ServerFolder, run_id: str, rounds: int, sites: int) -> None:
    """A running run with as many rounds and sites, each with counts as large as real ones."""
    record = shifted(complete(), run_id, datetime.now(UTC) - timedelta(hours=3))
    with open_history(folder.database_url()) as history:
        history.save_run(dataclasses.replace(record.run, state="running", finished_at=None))
        for number in range(1, rounds + 1):
            like = 1 + number % 2
            round_ = dataclasses.replace(record.rounds[like - 1], number=number)
            if number == rounds:
                round_ = dataclasses.replace(round_, finished_at=None)
            history.save_round(round_)
            history.save_model_version(_numbered(record.versions[like - 1], number))
            for index in range(sites):
                site = f"site-{index}"
                if number == 1:
                    history.save_site(Site(run_id, site, True, "", 900, 150, 160))
                for result in record.site_results:
                    if result.round == like and result.site == SITES[index % 3]:
                        history.save_site_result(
                            dataclasses.replace(result, round=number, site=site)
                        )
                for update in record.edge_updates:
                    if update.round == like and update.site == SITES[index % 3]:
                        history.save_edge_update(
                            dataclasses.replace(update, round=number, site=site, version=number)
                        )


def _numbered(version: ModelVersion, number: int) -> ModelVersion:
    return dataclasses.replace(version, version=number)
