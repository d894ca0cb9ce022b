"""A whole run over sites with policies of their own: what they forbid does not leave them."""

import json
import resource
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict

from common.bundle import load_bundle
from common.flower_records import (
    pack_instructions,
    payload_bytes,
    payload_sha256,
    unpack_answer,
    unpack_instruction,
)
from common.messages import (
    PROTOCOL,
    Answer,
    BalanceReply,
    DeployReply,
    HandshakeAsk,
    HandshakeReply,
    Instruction,
    TrainAsk,
)
from common.qana.quantize import chain_names
from common.qana.weights import NamedWeights
from edge_client.audit_log import entries, verify
from edge_client.case_journal import CaseJournal
from edge_client.flower import app as deployed
from edge_client.policy import POLICY, POLICY_TEMPLATE
from edge_client.service import EdgeClient
from edge_client.site import SiteFolder
from edge_client.site_tasks import answer, train
from edge_client.training_time import SPENT
from server.class_offsets import STEPS
from server.history.records import RunRecord
from server.validation import check_deployment
from simulation.sites import NewClass
from tests.support.hostile import run_with
from tests.support.tiny_run import TINY, create_tiny, record_of

TEACHER, AWAY, DISCREET, NOISY = (f"site-{n}" for n in range(1, 5))
FEWEST = 3
CLIP = 0.5

POLICIES = {
    TEACHER: "[sharing]\nneurons = false\n[training]\nmax_epochs = 1\nhours_per_day = 1.0\n"
    "[acceptance]\ntolerance = 1.0\n",
    AWAY: "[training]\ntake_part = false\n[acceptance]\nmin_balanced_accuracy = 1.0\n",
    DISCREET: f"[reporting]\nmin_cases_per_class = {FEWEST}\n",
    NOISY: f'[privacy]\nclip_norm = {CLIP}\n[answers]\nall_symmetries = "never"\n',
}
LATER = {
    NOISY: POLICIES[NOISY].replace("[answers]", "epsilon = 50.0\n[answers]"),
}
"""From the second round on; a policy holds from the next message."""


@dataclass
class Exchange:
    """What one site was asked and what left it."""

    site: str
    instruction: Instruction
    reply: RecordDict

    @property
    def answer(self) -> Answer:
        return unpack_answer(self.reply)


@dataclass
class Listener:
    """The deployed ClientApp, overheard."""

    heard: list[Exchange] = field(default_factory=list)

    def __call__(self, message: Message, context: Context) -> Message:
        folder = Path(str(context.node_config["site-folder"]))
        instruction = unpack_instruction(message)
        if folder.name in LATER and getattr(instruction.ask, "round", 0) == 2:
            (folder / POLICY).write_text(LATER[folder.name])
        reply = deployed(message, context)
        self.heard.append(Exchange(folder.name, instruction, reply.content))
        return reply

    def of(self, site: str, kind: str) -> list[Exchange]:
        return [e for e in self.heard if e.site == site and e.instruction.kind == kind]


@dataclass
class Finished:
    folder: Path
    record: RunRecord
    listener: Listener

    def home(self, site: str) -> Path:
        return self.folder / "sites" / site


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    data: dict[str, Any] = {
        "data": "synthetic:160",
        "sites": "iid:4",
        "new_class": NewClass(code="bcc", round=2, site=TEACHER).model_dump(),
    }
    out = tmp_path_factory.mktemp("policies")
    # Batch norm's statistics are most of an update, so they are what there is to clip.
    rounds = {"float_rounds": 2, "qat_rounds": 0, "freeze_batch_norm": 1.0}
    folder = create_tiny(
        out, data, **rounds, local_epochs=2, all_symmetries="last", class_offsets=True
    )
    homes = [folder / "sites" / f"site-{n}" for n in range(1, 5)]
    for site, text in POLICIES.items():
        (folder / "sites" / site / POLICY).write_text(text)
    listener = Listener()
    run_with(folder, listener, sites=homes)
    return Finished(folder, record_of(folder), listener)


def results(run: Finished, step: str, site: str) -> list[Any]:
    found = [r for r in run.record.site_results if r.step == step and r.site == site]
    return sorted(found, key=lambda r: r.round)


def test_a_site_that_declines_costs_itself_the_round_and_not_the_run(run: Finished) -> None:
    assert run.record.run.state == "finished"
    assert [r.sites_aggregated for r in run.record.rounds] == [3, 3]
    found = results(run, "train", AWAY)
    assert [r.round for r in found] == [1, 2] and not any(r.accepted for r in found)
    reason = "declined: the site's policy does not allow training now"
    assert {r.reason for r in found} == {reason}
    events = [e for e in run.record.events if e.kind == "reply-refused" and e.site == AWAY]
    assert f"train: {reason}" in {e.message for e in events}
    assert all(r.accepted for r in results(run, "evaluate", AWAY))
    assert not [e for e in run.listener.of(AWAY, "train") if e.answer.arrays]


def test_who_does_not_train_or_adds_noise_tells_nothing_of_training_cases(run: Finished) -> None:
    """NOISY has a privacy budget from the second round on, which is the phase's last."""
    for site in (AWAY, NOISY):
        (found,) = results(run, "balance", site)
        assert found.reason == "declined: the site's policy does not allow this reply"
        assert len(run.listener.of(site, "balance")) == 1  # and is not asked again
    told = [e.answer for e in run.listener.of(DISCREET, "balance")]
    assert len(told) == STEPS
    counts = BalanceReply.model_validate_json(told[0].reply).counts
    assert sum(counts) > 0 and all(n == 0 or n >= FEWEST for n in counts)
    assert any(e.kind == "balanced" for e in run.record.events)


def test_a_site_whose_minimum_no_program_reaches_has_none_in_service(run: Finished) -> None:
    found = results(run, "deploy", AWAY)
    assert {r.reason for r in found} == {
        "below-minimum: the program is below the minimum that the site's policy asks for"
    }
    assert len(found) == 2
    final = [e.answer for e in run.listener.of(AWAY, "final")]
    heads = {"float", "quantized", "akida", "akida_symmetries"}
    assert set(json.loads(final[0].reply)["heads"]) == heads


HITS = ("old_before", "old_after", "new_before", "new_after")


def rows(value: Any) -> list[int]:
    """Cases per class of every table of counts in a reply."""
    if not isinstance(value, dict):
        return []
    if "confusion" in value:
        return [sum(row) for row in value["confusion"]]
    return [n for each in value.values() for n in rows(each)]


def test_rare_classes_are_in_no_number_that_is_reported(run: Finished) -> None:
    whole = SiteFolder(run.home(DISCREET)).read()
    per_class = whole.validation.class_counts(len(whole.classes))
    assert any(0 < n < FEWEST for n in per_class) and any(n >= FEWEST for n in per_class)
    reported = int(sum(n for n in per_class if n >= FEWEST))
    shake = HandshakeReply.model_validate_json(
        run.listener.of(DISCREET, "handshake")[0].answer.reply
    )
    assert shake.n_validation == reported < len(whole.validation)
    seen = 0
    for exchange in run.listener.heard:
        if exchange.site != DISCREET or exchange.instruction.kind == "handshake":
            continue
        reply = json.loads(exchange.answer.reply)
        found = rows(reply)
        seen += len(found)
        assert not [n for n in found if 0 < n < FEWEST]
        hits = [reply[key][1] for key in HITS if key in reply]
        assert not [n for n in hits if 0 < n < FEWEST]
    assert seen > 50
    for step in ("train", "evaluate", "deploy", "final"):
        assert all(r.accepted for r in results(run, step, DISCREET)), step


def test_lesions_that_are_not_reported_are_not_learned_either(run: Finished) -> None:
    data = SiteFolder(run.home(DISCREET)).read()
    journal = next(run.home(DISCREET).rglob("cases.journal"))
    learned = {case.lesion_id for case in CaseJournal(journal, read_only=True).cases()}
    assert learned and not learned & data.held_back


def test_neurons_stay_where_the_policy_says_so(run: Finished) -> None:
    assert run.record.run.classes[-1] == "bcc"  # the class's name is reported, not its neurons
    _, last = run.listener.of(TEACHER, "deploy")
    reply = DeployReply.model_validate_json(last.answer.reply)
    assert reply.switched and reply.cases_learned and reply.new_classes == ("bcc",)
    assert reply.neurons is None  # tests/simulation/test_sharing.py has them without a policy
    assert not [e for e in run.record.events if e.kind == "neurons-merged"]
    sent = [e.contents for e in entries(run.home(TEACHER)) if e.kind == "deploy"]
    assert not [contents for contents in sent if "neurons" in contents]


def moved(exchange: Exchange) -> NamedWeights:
    received = exchange.instruction.arrays
    return {n: a.astype(np.float64) - received[n] for n, a in exchange.answer.arrays.items()}


def test_the_update_is_clipped_then_noised_and_the_coordinator_takes_it(run: Finished) -> None:
    def norm(exchange: Exchange) -> float:
        return float(np.sqrt(sum(np.square(a).sum() for a in moved(exchange).values())))

    clipped, noised = run.listener.of(NOISY, "train")
    assert norm(clipped) == pytest.approx(CLIP, rel=1e-3)
    others = [norm(e) for e in run.listener.of(DISCREET, "train")]
    assert min(others) > CLIP  # so there was something to clip
    assert norm(noised) > 2 * CLIP
    assert [r.accepted for r in results(run, "train", NOISY)] == [True] * 2
    variances = {n: a for n, a in noised.answer.arrays.items() if n.endswith("/moving_variance")}
    assert variances and all((a >= 0).all() for a in variances.values())


def test_fewer_epochs_are_trained_than_asked(run: Finished) -> None:
    first = run.listener.of(TEACHER, "train")[0]
    ask = first.instruction.ask
    assert isinstance(ask, TrainAsk) and ask.epochs == 2
    folder = SiteFolder(run.home(TEACHER))
    one = ask.model_copy(update={"epochs": 1})
    trained = train(first.instruction, one, folder, folder.read())
    for name, array in first.answer.arrays.items():
        np.testing.assert_array_equal(array, trained.arrays[name])
    assert [r.accepted for r in results(run, "train", TEACHER)] == [True] * 2


def test_answers_are_over_all_symmetries_as_run_and_policy_say(run: Finished) -> None:
    for site, expected in ((TEACHER, True), (DISCREET, True), (NOISY, False)):
        service = EdgeClient(run.home(site) / "state", read_only=True)
        assert service.status()["all_symmetries"] is expected
        # What eight views are worth is told of every site, whatever it answers by.
        heads = json.loads(run.listener.of(site, "final")[0].answer.reply)["heads"]
        assert {"akida_symmetries", "symmetries"} < set(heads)


def test_the_last_version_is_the_one_for_eight_views(run: Finished) -> None:
    asks = [heard.instruction.ask for heard in run.listener.of(TEACHER, "deploy")]
    assert [(ask.round, ask.all_symmetries) for ask in asks] == [(1, False), (2, True)]
    cards = [load_bundle(run.folder / "versions" / str(n)).card for n in (1, 2)]
    assert [card.all_symmetries for card in cards] == [False, True]


def test_hours_of_training_are_counted(run: Finished) -> None:
    spent = json.loads((run.home(TEACHER) / SPENT).read_text())
    reported = sum(json.loads(e.answer.reply)["seconds"] for e in run.listener.of(TEACHER, "train"))
    assert sum(spent.values()) >= reported - 0.01


@pytest.mark.parametrize("site", POLICIES)
def test_every_reply_is_in_the_audit_log(site: str, run: Finished) -> None:
    lines = entries(run.home(site))
    heard = [e for e in run.listener.heard if e.site == site]
    assert [(e.kind, e.payload_bytes, e.sha256) for e in lines] == [
        (e.instruction.kind, payload_bytes(e.reply), payload_sha256(e.reply)) for e in heard
    ]
    assert [e.code for e in lines] == [e.answer.error for e in heard]
    assert {e.run for e in lines} == {run.record.run.run_id}
    sent = {(r.step, r.round): r.bytes_up for r in run.record.site_results if r.site == site}
    assert {(e.kind, e.round): e.payload_bytes for e in lines if e.round} == sent
    trained = [e for e in lines if e.kind == "train"]
    expected = ("error code",) if site == AWAY else ("case numbers", "loss", "times", "weights")
    assert {e.contents for e in trained} == {expected}
    report = verify(run.home(site))
    assert report.problems == () and report.lines == len(heard)


# -- one message at a time --------------------------------------------------------------------

DATA_FILES = ("site.json", "cases.npz", "arrivals.npz")


@pytest.fixture
def home(run: Finished, tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    for name in DATA_FILES:
        (folder / name).write_bytes((run.home(NOISY) / name).read_bytes())
    (folder / POLICY).write_text(POLICY_TEMPLATE)
    return folder


def handshake(home: Path) -> Answer:
    ask = HandshakeAsk(protocol=PROTOCOL, run="r", classes=("nv", "mel"), config=TINY)
    (content,) = pack_instructions([Instruction("handshake", ask)])
    message = Message(content, dst_node_id=1, message_type="query.handshake")
    message.metadata.__dict__["_message_id"] = "1"
    context = Context(1, 1, {"site-folder": str(home)}, RecordDict(), {})
    return unpack_answer(deployed(message, context).content)


def test_a_site_without_a_policy_has_no_audit_log(home: Path) -> None:
    (home / POLICY).unlink()
    assert handshake(home).reply
    assert {path.name for path in home.iterdir()} <= {*DATA_FILES, "state"}


def test_what_cannot_be_written_down_is_not_sent(home: Path) -> None:
    assert handshake(home).reply
    size = (home / "audit.jsonl").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, hard))
    try:
        assert handshake(home) == Answer(error="storage-full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert handshake(home).reply
    assert len(entries(home)) == 2 and verify(home).problems == ()


def test_a_site_that_reports_no_case_at_all_still_takes_part(home: Path, run: Finished) -> None:
    (home / POLICY).write_text("[reporting]\nmin_cases_per_class = 1000\n")
    shake = HandshakeReply.model_validate_json(handshake(home).reply)
    assert (shake.n_validation, shake.n_test) == (0, 0) and shake.n_train > 0
    for kind in ("train", "evaluate", "deploy", "final"):
        asked = run.listener.of(NOISY, kind)[0].instruction
        said = answer(asked, SiteFolder(home))
        assert not said.error, kind
        assert not any(rows(json.loads(said.reply)))
        if kind == "deploy":
            layers = chain_names(TINY)
            check_deployment(said, run.record.run.plan["classes"], 1, layers, 0)


def test_after_the_log_was_shortened_nothing_is_sent(home: Path) -> None:
    assert handshake(home).reply and handshake(home).reply
    log = home / "audit.jsonl"
    log.write_bytes(log.read_bytes().splitlines(keepends=True)[0])
    assert handshake(home) == Answer(error="state-damaged")


@pytest.mark.parametrize("text", ["[training]\nno_such_key = 1\n", "[", None])
def test_without_a_usable_policy_nothing_is_sent(text: str | None, home: Path) -> None:
    assert handshake(home).reply
    if text is None:
        (home / POLICY).unlink()
    else:
        (home / POLICY).write_text(text)
    assert handshake(home) == Answer(error="declined")
    assert [e.code for e in entries(home)] == ["", "declined"]
