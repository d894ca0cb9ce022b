"""One site of four misbehaves in the real engine: named, left out, and without effect."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message

from common.bundle import load_bundle
from common.errors import SiteRefused
from common.messages import Answer, DeployReply
from common.qana.networks import initial_weights
from common.qana.quantize import chain_names
from edge_client.case_journal import CaseJournal
from edge_client.flower import app as deployed
from edge_client.site import SiteFolder
from server.flower import aggregate
from server.history.records import RunRecord
from server.run_folder import RunFolder
from server.validation import MOST_CLASSES, check_deployment
from simulation.sites import NewClass
from tests.support.hostile import HostileSites, Twist, run_with
from tests.support.tiny_run import TINY, create_tiny, record_of, run_tiny, state_of, tiny_plan

BAD = "site-2"
SECRET = "PatientMueller"


def _poison(answer: Answer, value: float) -> Answer:
    arrays = {name: array.copy() for name, array in answer.arrays.items()}
    arrays["head/bias"][0] = value
    return replace(answer, arrays=arrays)


def _with_reply(answer: Answer, **changed: Any) -> Answer:
    return replace(answer, reply=json.dumps({**json.loads(answer.reply), **changed}))


def _hostile_run(
    out: Path, twists: dict[tuple[str, str], Twist], **settings: Any
) -> tuple[Path, HostileSites]:
    folder = create_tiny(out, **{"qat_rounds": 0, **settings})
    client = HostileSites(twists)
    run_with(folder, client)
    return folder, client


def _refused(record: RunRecord) -> list[tuple[int, str, str, str]]:
    return [
        (r.round, r.site, r.step, r.reason.split(":")[0]) for r in record.site_results if r.reason
    ]


def _left_out(record: RunRecord) -> dict[str, str]:
    return {s.name: s.reason.split(":")[0] for s in record.sites if not s.accepted}


def test_the_round_is_that_of_the_other_three(tmp_path: Path) -> None:
    folder, client = _hostile_run(tmp_path, {("train", BAD): lambda a, _: _poison(a, np.nan)})
    plan, state, record = tiny_plan(qat_rounds=0), state_of(folder), record_of(folder)
    assert record.run.state == "finished" and state is not None
    others = {
        site: (answer.arrays, json.loads(answer.reply)["examples"])
        for (kind, site), answer in client.answers.items()
        if kind == "train" and site != BAD
    }
    assert len(others) == 3
    start = initial_weights(TINY, len(plan.classes), plan.seed)
    expected, _ = aggregate(plan, 1, start, others, {})
    assert {n: a.tobytes() for n, a in state.floating.items()} == {
        n: a.tobytes() for n, a in expected.items()
    }
    assert _refused(record) == [(1, BAD, "train", "not-finite")]
    assert [(e.kind, e.site) for e in record.events if e.site] == [("reply-refused", BAD)]
    assert record.rounds[0].sites_aggregated == 3


def test_a_bad_reply_in_any_step_costs_its_site_that_step_only(tmp_path: Path) -> None:
    def train(answer: Answer, before: int) -> Answer:
        if before == 0:
            raise RuntimeError(SECRET)
        return Answer(error=SECRET) if before == 1 else _with_reply(answer, **{SECRET: SECRET})

    def evaluate(answer: Answer, before: int) -> Answer:
        changed = [{"counts": {SECRET: 1}}, {"ranges": [1e9]}, {}][before]
        return _with_reply(answer, **changed)

    twists: dict[tuple[str, str], Twist] = {
        ("train", BAD): train,
        ("evaluate", BAD): evaluate,
        ("deploy", "site-3"): lambda a, _: _with_reply(a, backend=SECRET),
        ("final", "site-4"): lambda a, _: _with_reply(a, heads={}),
    }
    folder, _ = _hostile_run(tmp_path, twists, float_rounds=3)
    record = record_of(folder)
    assert record.run.state == "finished"
    assert sorted(_refused(record)) == sorted(
        [
            (1, BAD, "train", "engine-error-2"),
            (2, BAD, "train", "malformed"),
            (3, BAD, "train", "malformed"),
            (1, BAD, "evaluate", "counts"),
            (2, BAD, "evaluate", "ranges"),
            *((number, "site-3", "deploy", "malformed") for number in (1, 2, 3)),
            (3, "site-4", "final", "counts"),
        ]
    )
    assert SECRET not in repr(record)


def test_sites_that_do_not_fit_are_left_out_by_name(tmp_path: Path) -> None:
    twists: dict[tuple[str, str], Twist] = {
        ("handshake", "site-2"): lambda a, _: _with_reply(a, protocol=99),
        ("handshake", "site-3"): lambda a, _: _with_reply(a, classes=["nv", SECRET]),
        ("handshake", "site-4"): lambda a, _: _with_reply(a, model_hash=SECRET),
    }
    folder, _ = _hostile_run(tmp_path, twists)
    record = record_of(folder)
    assert record.run.state == "finished"
    assert _left_out(record) == {
        "site-2": "protocol",
        "site-3": "class-map",
        "site-4": "model-hash",
    }
    assert {r.site for r in record.site_results} == {"site-1"}
    assert SECRET not in repr(record)


def test_sites_without_a_name_of_their_own_are_left_out(tmp_path: Path) -> None:
    folder = create_tiny(tmp_path, qat_rounds=0)
    os.truncate(folder / "sites" / "site-4" / "cases.npz", 100)
    twists: dict[tuple[str, str], Twist] = {
        ("handshake", "site-2"): lambda a, _: _with_reply(a, site="site-1"),
        ("handshake", "site-3"): lambda a, _: _with_reply(a, n_train=10**30),
    }
    run_with(folder, HostileSites(twists))
    record = record_of(folder)
    assert _left_out(record) == {
        "node 3": "duplicate",
        "node 4": "malformed",
        "node 5": "data-unreadable",
    }
    assert [s.name for s in record.sites if s.accepted] == ["site-1"]


def test_a_reply_from_an_unknown_site_is_refused(tmp_path: Path) -> None:
    folder = create_tiny(tmp_path, qat_rounds=0)
    unknown_node = 999

    def impostor(message: Message, context: Context) -> Message:
        reply = deployed(message, context)
        site = Path(str(context.node_config["site-folder"])).name
        if message.metadata.message_type == "train" and site == BAD:
            reply.metadata.__dict__["_src_node_id"] = unknown_node
        return reply

    run_with(folder, impostor)
    record = record_of(folder)
    assert record.run.state == "finished"
    assert _refused(record) == [(1, BAD, "train", "unknown-site")]


def test_new_classes_without_end_are_refused(tmp_path: Path) -> None:
    invented = [f"x{index}" for index in range(16)]
    classes = tuple(f"c{index}" for index in range(MOST_CLASSES - 10))
    reply = DeployReply.model_validate_json(
        _deploy_reply(tmp_path)
        .model_copy(update={"new_classes": tuple(invented)})
        .model_dump_json()
    )
    with pytest.raises(SiteRefused) as refusal:
        check_deployment(Answer(reply.model_dump_json()), classes, 1, chain_names(TINY), 100)
    assert refusal.value.code == "unknown-class"


def _deploy_reply(out: Path) -> DeployReply:
    """What an honest site answers to a deployment."""
    _, client = _hostile_run(out, {})
    return DeployReply.model_validate_json(client.answers["deploy", BAD].reply)


def test_weights_that_no_training_can_reach_cost_their_site_the_round(tmp_path: Path) -> None:
    def inflated(answer: Answer, _: int) -> Answer:
        arrays = {name: np.full_like(array, 30.0) for name, array in answer.arrays.items()}
        return replace(answer, arrays=arrays)

    def strange(answer: Answer, _: int) -> Answer:
        arrays = {
            name: array * 500 if name.endswith("/moving_mean") else array
            for name, array in answer.arrays.items()
        }
        return replace(answer, arrays=arrays)

    twists: dict[tuple[str, str], Twist] = {("train", BAD): inflated, ("train", "site-3"): strange}
    folder, _ = _hostile_run(tmp_path, twists)
    record = record_of(folder)
    assert record.run.state == "finished"
    assert _refused(record) == [(1, BAD, "train", "too-far"), (1, "site-3", "train", "outlier")]
    assert record.rounds[0].sites_aggregated == 2


def test_calibration_cannot_close_the_network(tmp_path: Path) -> None:
    def next_to_nothing(answer: Answer, _: int) -> Answer:
        ranges = json.loads(answer.reply)["ranges"]
        return _with_reply(answer, ranges=[1e-300] * (len(ranges) - 1) + [0.0])

    twists: dict[tuple[str, str], Twist] = {
        ("evaluate", BAD): next_to_nothing,
        ("evaluate", "site-3"): lambda a, _: _with_reply(a, calibration_images=10**9),
    }
    folder, _ = _hostile_run(tmp_path, twists)
    record = record_of(folder)
    assert record.run.state == "finished"
    assert [(s, step, code) for _, s, step, code in _refused(record)] == [
        (BAD, "evaluate", "ranges"),
        ("site-3", "evaluate", "ranges"),
    ]


def test_a_reply_of_numbers_where_text_belongs_is_refused(tmp_path: Path) -> None:
    folder = create_tiny(tmp_path, qat_rounds=0)

    def odd(message: Message, context: Context) -> Message:
        reply = deployed(message, context)
        site = Path(str(context.node_config["site-folder"])).name
        kind = message.metadata.message_type
        if kind == "train" and site == BAD:
            reply.content["answer"] = ConfigRecord({"reply": 5, "error": [1.5, 2.5]})
        if kind == "evaluate" and site == "site-3":
            reply.content["more"] = ConfigRecord({"n": 5, "texts": ["a", "bc"], "b": b"x"})
        return reply

    run_with(folder, odd)
    record = record_of(folder)
    assert record.run.state == "finished"
    assert _refused(record) == [(1, BAD, "train", "malformed")]


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam"])
def test_a_network_that_diverged_is_not_the_end_of_the_run(strategy: str, tmp_path: Path) -> None:
    # No site is hostile here: a learning rate this high makes weights that do not convert.
    settings = {"qat_learning_rate": 300.0, "server_learning_rate": 300.0, "strategy": strategy}
    if strategy == "fedavg":
        del settings["server_learning_rate"]
    folder = run_tiny(tmp_path, qat_rounds=2, **settings)
    record = record_of(folder)
    assert record.run.state == "finished"
    discarded = [e.round for e in record.events if e.kind == "round-discarded"]
    assert discarded
    plan = tiny_plan()
    for number in discarded:
        assert number is not None
        after = load_bundle(RunFolder(folder).version(number))
        if number == 1:
            start = initial_weights(TINY, len(plan.classes), plan.seed)
            found = after.weights("float.npz")
            assert all(np.array_equal(start[name], found[name]) for name in start)
            continue
        before = load_bundle(RunFolder(folder).version(number - 1))
        for name in ("quantized.npz", "program.fbz"):
            assert before.card.sha256[name] == after.card.sha256[name]
    state = state_of(folder)
    assert state is not None and (discarded[-1] < 3 or not state.strategy)


def _failing_deployments(name: str, times: int) -> Callable[[Message, Context], Message]:
    """The deployed ClientApp, of which one site fails before its first deployments begin."""
    left = iter(range(times))

    def client(message: Message, context: Context) -> Message:
        site = Path(str(context.node_config["site-folder"])).name
        deployment = message.metadata.message_type == "query.deploy"
        if site == name and deployment and next(left, None) is not None:
            raise RuntimeError
        return deployed(message, context)

    return client


def test_a_site_that_missed_a_deployment_learns_its_cases_with_the_next(tmp_path: Path) -> None:
    folder = create_tiny(tmp_path, {"arrivals": 0.4}, float_rounds=2, qat_rounds=0)
    run_with(folder, _failing_deployments("site-1", 1))
    record = record_of(folder)
    assert _refused(record) == [(1, "site-1", "deploy", "engine-error-2")]
    site = SiteFolder(folder / "sites" / "site-1")
    arrived = set(site.read().arrivals.case_ids)
    journal = CaseJournal(site.state / "cases.journal", read_only=True)
    assert {case.case_id for case in journal.cases()} == arrived
    learned = [u.cases_learned for u in record.edge_updates if u.site == "site-1"]
    assert learned == [len(arrived)]


def test_a_site_without_a_program_still_judges_the_model(tmp_path: Path) -> None:
    folder = create_tiny(tmp_path, qat_rounds=0)
    run_with(folder, _failing_deployments(BAD, 1))
    record = record_of(folder)
    assert record.run.state == "finished"
    (result,) = [r.result for r in record.site_results if (r.site, r.step) == (BAD, "final")]
    assert {"float", "quantized", "akida"} <= set(result) and "chip" not in result


def test_a_class_whose_report_was_lost_does_not_cost_the_test(tmp_path: Path) -> None:
    new = NewClass(code="vasc", round=1, site="site-1")
    folder = create_tiny(tmp_path, {"new_class": new}, qat_rounds=0)
    client = HostileSites({("deploy", "site-1"): lambda a, _: Answer(error="internal-error")})
    run_with(folder, client)
    record = record_of(folder)
    assert record.run.state == "finished" and "vasc" not in record.run.classes
    finals = {r.site: set(r.result) for r in record.site_results if r.step == "final"}
    assert all({"akida", "chip"} <= heads for heads in finals.values()) and len(finals) == 4
