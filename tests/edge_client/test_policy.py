"""The policy file, and that what it forbids does not leave the site."""

import json
import os
import signal
import subprocess
import sys
import tomllib
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import SettingsError, SiteRefused, StateDamaged
from common.messages import (
    Answer,
    BalanceAsk,
    BalanceReply,
    DeployAsk,
    DeployReply,
    EvaluateAsk,
    HandshakeAsk,
    Instruction,
    TrainAsk,
)
from common.neurons import NeuronSet, SharedNeuron, packed
from common.qana.config import QanaConfig
from common.qana.weights import NamedWeights
from common.score_counts import ScoreCounts
from common.update_reach import farthest, optimizer_steps
from edge_client.outgoing import allowed, contents
from edge_client.policy import (
    POLICY,
    POLICY_TEMPLATE,
    AnswersPolicy,
    Policy,
    TrainingPolicy,
    read_policy,
)
from edge_client.privacy import NOISE_KEY, noise_deviation, protected
from edge_client.reporting import judged_on, reported
from edge_client.service import EdgeClient, EdgeSettings
from edge_client.site import SiteData
from edge_client.training_time import SPENT, allowed_training, spent_seconds
from server.validation import check_update, outlying_statistics
from tests.cli.command import ROOT
from tests.edge_client.cases import CLASSES, some_cases
from tests.edge_client.test_service import MISLABELLED, install

KEYS = [(section, key) for section, form in Policy() for key in type(form).model_fields]


def policy_of(text: str, home: Path) -> Policy:
    (home / POLICY).write_text(text)
    return read_policy(home)


# -- the file ---------------------------------------------------------------------------------


def test_without_a_file_everything_is_allowed(tmp_path: Path) -> None:
    assert read_policy(tmp_path) == Policy()
    assert not list(tmp_path.iterdir())
    assert Policy().training.objection(datetime(2026, 1, 1), 10**6) == ""


@pytest.mark.parametrize("trace", ["audit.jsonl", "audit-000000000009.jsonl", "client.toml"])
def test_a_site_that_lost_its_file_is_told(trace: str, tmp_path: Path) -> None:
    (tmp_path / trace).touch()
    with pytest.raises(SettingsError, match=r"policy\.toml is missing; put it back"):
        read_policy(tmp_path)


def test_the_template_has_every_key_with_its_default(tmp_path: Path) -> None:
    assert policy_of(POLICY_TEMPLATE, tmp_path) == Policy()
    values = tomllib.loads(POLICY_TEMPLATE)
    assert [(section, key) for section, part in values.items() for key in part] == KEYS
    assert max(map(len, POLICY_TEMPLATE.splitlines())) <= 100


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_the_docs_explain_every_key(section: str, key: str) -> None:
    page = (ROOT / "docs" / "policy.md").read_text()
    default = json.dumps(getattr(getattr(Policy(), section), key))
    part = page.split(f"### [{section}]")[1].split("\n##")[0]
    assert f"| `{key}` | `{default}` |" in part


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[training]\nhours_per_dya = 3", "[training] has no key 'hours_per_dya'; its keys are ta"),
        ("[trainign]\n", "there is no section [trainign]; the sections are training, reporting"),
        ("take_part = true", "there is no section [take_part]"),
        ("[training]\nhours_per_day = 25", "[training] hours_per_day: Input should be less than"),
        ("[training]\ntake_part = 1", "[training] take_part: Input should be a valid boolean"),
        ('[training]\ntake_part = "yes"', "[training] take_part: Input should be a valid boolean"),
        ("[training]\nmax_epochs = 1.5", "[training] max_epochs: Input should be a valid integer"),
        ('[training]\nwindow = "8-9"', '[training] window: give two different times as "HH:MM-HH:'),
        ('[training]\nwindow = "24:00-06:00"', "[training] window: give two different times"),
        ('[training]\nwindow = "06:00-06:00"', "[training] window: give two different times"),
        ("[privacy]\nepsilon = 1.0", "[privacy]: epsilon needs a clip_norm above 0"),
        ("[privacy]\ndelta = 0.0", "[privacy] delta: Input should be greater than 0"),
        ("[privacy]\nclip_norm = nan", "[privacy] clip_norm: Input should be"),
        ("[acceptance]\nmin_balanced_accuracy = 70", "[acceptance] min_balanced_accuracy: Input"),
        ("[answers]\nall_symmetries = true", "[answers] all_symmetries: Input should be 'run', "),
        ('[referral]\nclasses = ["Mel"]', "[referral] classes: give class codes"),
        ('[referral]\nclasses = "mel"', "[referral] classes: Input should be a valid tuple"),
        ("training = 3", "[training]: Input should be"),
        ("[training\n", "is not TOML"),
        ("\xff", "is not TOML"),
    ],
)
def test_a_mistake_is_told_in_one_line(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / POLICY).write_bytes(text.encode("latin-1"))
    with pytest.raises(SettingsError) as caught:
        read_policy(tmp_path)
    message = str(caught.value)
    assert str(tmp_path / POLICY) in message and told in message and "\n" not in message


def test_whole_numbers_are_numbers(tmp_path: Path) -> None:
    assert policy_of("[training]\nhours_per_day = 8", tmp_path).training.hours_per_day == 8.0


# -- training ---------------------------------------------------------------------------------


def at(clock: str) -> datetime:
    return datetime.fromisoformat(f"2026-03-01 {clock}")


@pytest.mark.parametrize(
    ("window", "clock", "inside"),
    [
        ("20:00-06:00", "20:00", True),
        ("20:00-06:00", "23:59", True),
        ("20:00-06:00", "00:00", True),
        ("20:00-06:00", "05:59:59", True),
        ("20:00-06:00", "06:00", False),
        ("20:00-06:00", "19:59:59", False),
        ("08:30-17:00", "08:30", True),
        ("08:30-17:00", "16:59:59", True),
        ("08:30-17:00", "17:00", False),
        ("08:30-17:00", "02:00", False),
        ("12:00-00:00", "23:59:59", True),
        ("12:00-00:00", "00:00", False),
    ],
)
def test_the_window_may_pass_midnight(window: str, clock: str, inside: bool) -> None:
    objection = TrainingPolicy(window=window).objection(at(clock), 0.0)
    assert (objection == "") == inside
    assert inside or window in objection


def test_a_site_that_does_not_take_part_never_trains(tmp_path: Path) -> None:
    with (
        pytest.raises(SiteRefused, match="take_part = false") as caught,
        allowed_training(tmp_path, TrainingPolicy(take_part=False)),
    ):
        pass
    assert caught.value.code == "declined"


def test_hours_are_those_spent_today(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("edge_client.training_time.time.monotonic", lambda: clock[0])
    policy = TrainingPolicy(hours_per_day=1.0)

    def train(now: datetime, hours: float) -> None:
        with allowed_training(tmp_path, policy, now):
            clock[0] += 3600 * hours

    train(at("08:00"), 0.4)
    train(at("12:00"), 0.5)
    train(at("23:50"), 0.3)  # begun with time left, so it is finished
    assert spent_seconds(tmp_path, date(2026, 3, 1)) == pytest.approx(1.2 * 3600)
    with pytest.raises(SiteRefused, match=r"1\.20 hours of training today"):
        train(at("23:59"), 0.1)
    with pytest.raises(ZeroDivisionError), allowed_training(tmp_path, policy, datetime(2026, 3, 2)):
        clock[0] += 360.0
        raise ZeroDivisionError  # time of a training that failed was spent all the same
    assert spent_seconds(tmp_path, date(2026, 3, 2)) == pytest.approx(360.0)
    assert spent_seconds(tmp_path, date(2026, 3, 3)) == 0.0


def test_hours_of_a_training_that_is_killed_count(tmp_path: Path) -> None:
    script = """
import os, signal, sys, time
from datetime import datetime
from pathlib import Path
from edge_client import training_time
from edge_client.policy import TrainingPolicy
training_time._COUNTED_EVERY = 0.1
home, now = Path(sys.argv[1]), datetime(2026, 3, 1)
with training_time.allowed_training(home, TrainingPolicy(hours_per_day=1.0), now):
    while training_time.spent_seconds(home, now.date()) < 0.3:
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path)], timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert spent_seconds(tmp_path, date(2026, 3, 1)) >= 0.3


def test_no_hours_are_counted_without_a_limit(tmp_path: Path) -> None:
    with allowed_training(tmp_path, TrainingPolicy()):
        pass
    assert not list(tmp_path.iterdir())


def test_a_damaged_count_of_hours_allows_nothing(tmp_path: Path) -> None:
    (tmp_path / SPENT).write_text("[]")
    with (
        pytest.raises(StateDamaged, match="remove it to begin from 0"),
        allowed_training(tmp_path, TrainingPolicy(hours_per_day=1.0)),
    ):
        pass


def test_answers_follow_the_run_unless_the_site_says_otherwise() -> None:
    for said, answers in (("run", [False, True]), ("always", [True] * 2), ("never", [False] * 2)):
        policy = AnswersPolicy.model_validate({"all_symmetries": said})
        assert [policy.by_symmetries(asked) for asked in (False, True)] == answers


def test_epochs_are_at_most_those_of_the_policy() -> None:
    assert [TrainingPolicy().epochs(n) for n in (1, 5)] == [1, 5]
    assert [TrainingPolicy(max_epochs=2).epochs(n) for n in (1, 2, 5)] == [1, 2, 2]


THREADS = """
import os, sys
from edge_client.policy import Policy, TrainingPolicy, apply_threads
def threads(): return len(os.listdir("/proc/self/task"))
policy = Policy(training=TrainingPolicy(max_threads=int(sys.argv[1])))
if sys.argv[2] == "late":
    from common.keras_setup import tf
    tf.constant(1) + 1
applied = apply_threads(policy)
from common.keras_setup import tf
before = threads()
tf.constant(1) + 1
print(applied, threads() - before, apply_threads(policy))
"""


def test_threads_are_limited_before_tensorflow_computes() -> None:
    def run(*arguments: str) -> list[str]:
        command = [sys.executable, "-c", THREADS, *arguments]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
        ran = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        return ran.stdout.split()

    few, many = run("1", "early"), run("6", "early")
    assert few[0] == many[0] == "True" and few[2] == many[2] == "True"
    assert int(many[1]) - int(few[1]) == 10  # 5 more within an operation, 5 more between them
    assert run("1", "late")[0] == "False"


# -- reporting --------------------------------------------------------------------------------


def site(n_validation: tuple[int, int, int], n_test: tuple[int, int, int]) -> SiteData:
    from common.classes import ClassMap

    def of(counts: tuple[int, int, int], seed: int) -> Any:
        cases = some_cases(max(counts), seed)
        chosen = [i for c in range(3) for i in np.flatnonzero(cases.labels == c)[: counts[c]]]
        return cases.subset(np.array(chosen, np.int64))

    return SiteData(
        name="a",
        classes=ClassMap(CLASSES),
        train=of((4, 4, 4), 1),
        validation=of(n_validation, 2),
        test=of(n_test, 3),
        arrivals=of((2, 2, 2), 2),
        arrival_rounds=np.ones(6, np.int64),
    )


def limits(**sections: dict[str, Any]) -> Policy:
    return Policy.model_validate(sections)


def test_rare_classes_are_left_out_of_reports_and_held_back_all_the_same() -> None:
    data = site((5, 3, 2), (2, 5, 0))
    found = reported(data, limits(reporting={"min_cases_per_class": 3}))
    assert found.validation.class_counts(3).tolist() == [5, 3, 0]
    assert found.test.class_counts(3).tolist() == [0, 5, 0]
    assert found.held_back == data.held_back and len(found.held_back) == 17
    assert judged_on(found) is data.validation
    # The arrivals are the same lesions as the validation's: none may be learned.
    left = {case.lesion_id for case in found.arriving(1)}
    assert left == {case.lesion_id for case in data.arriving(1)}
    assert not left & data.held_back
    assert len(found.train) == len(data.train) and found.name == data.name


def test_nothing_changes_without_a_limit() -> None:
    data = site((5, 3, 2), (2, 5, 0))
    assert reported(data, Policy()) is data
    assert judged_on(data) is data.validation


def test_neurons_stay_where_either_says_so() -> None:
    data = site((1, 1, 1), (1, 1, 1))
    assert not reported(data, limits(sharing={"neurons": False})).shares_neurons
    assert reported(data, Policy()).shares_neurons


# -- the door ---------------------------------------------------------------------------------

ASK: dict[str, Any] = {"run": "demo", "round": 1, "classes": CLASSES, "config": QanaConfig()}
CODES = {"seconds": 1.0}


def counts(*per_class: int) -> dict[str, Any]:
    labels = np.repeat(np.arange(len(per_class)), per_class)
    logits = np.random.default_rng(0).normal(size=(len(labels), len(per_class)))
    return ScoreCounts.from_logits(logits, labels).to_json()


def neurons() -> NeuronSet:
    connections = np.zeros(16, np.uint8)
    connections[:6] = 1
    one = SharedNeuron(code="dark", connections=packed(connections), threshold=0, cases=3)
    return NeuronSet(program="0" * 64, spikes=16, num_weights=6, neurons=(one,))


def deployed(n: int = 10, **changed: Any) -> tuple[Instruction, Answer]:
    ask = DeployAsk(run="demo", round=1, version=1, original_classes=3, seed=0)
    values: dict[str, Any] = {
        "switched": True,
        "reason": "",
        "in_service": 1,
        "cases_learned": 0,
        "new_classes": (),
        "backend": "software backend (akida 2.19.3)",
        "heads": dict.fromkeys(
            ("akida", "quantized", "chip_before", "chip_after"), counts(n, 10, 0)
        ),
        "old_before": (0, n + 10),
        "old_after": (0, n + 10),
        "new_before": (0, 0),
        "new_after": (0, 0),
        "agreement": {"images": n + 10, "equal_predictions": 0, "spikes": 9, "equal_spikes": 9},
        "mean_spikes": {"stem": 1.0},
        "neurons": neurons(),
        "seconds": 1.0,
    }
    reply = DeployReply.model_validate({**values, **changed})
    return Instruction("deploy", ask), Answer(reply.model_dump_json())


def evaluated(*per_class: int) -> tuple[Instruction, Answer]:
    ask = EvaluateAsk(**ASK, phase="qat", calibrate=False)
    text = json.dumps({"counts": counts(*per_class), "seconds": 1.0})
    return Instruction("evaluate", ask), Answer(text)


def balanced(*per_class: int) -> tuple[Instruction, Answer]:
    shares = np.diag(np.array(per_class, float)).tolist()
    reply = BalanceReply(counts=per_class, shares=shares, seconds=1.0)
    return Instruction("balance", BalanceAsk(**ASK, phase="qat")), Answer(reply.model_dump_json())


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        (limits(training={"take_part": False}), "take_part = false"),
        (limits(privacy={"clip_norm": 1.0, "epsilon": 1.0}), "privacy budget"),
    ],
)
def test_how_training_cases_are_answered_is_not_told(
    policy: Policy, why: str, tmp_path: Path
) -> None:
    said = balanced(20, 0, 30)
    assert allowed(*said, Policy(), tmp_path) is said[1]
    assert contents(*said) == {"answers by class", "counts", "times"}
    with pytest.raises(SiteRefused, match=why) as caught:
        allowed(*said, policy, tmp_path)
    assert caught.value.code == "declined"


def test_an_allowed_answer_is_handed_on_as_it_is(tmp_path: Path) -> None:
    strict = limits(reporting={"min_cases_per_class": 10})
    for policy in (Policy(), strict):
        for instruction, answer in (deployed(), evaluated(10, 0, 20)):
            assert allowed(instruction, answer, policy, tmp_path) is answer


def test_neurons_that_came_into_an_answer_are_taken_out(tmp_path: Path) -> None:
    instruction, answer = deployed()
    assert "neurons" in contents(instruction, answer)
    found = allowed(instruction, answer, limits(sharing={"neurons": False}), tmp_path)
    reply = DeployReply.model_validate_json(found.reply)
    assert reply.neurons is None and reply.switched
    assert "connections" not in found.reply
    assert "neurons" not in contents(instruction, found)


@pytest.mark.parametrize(
    "said",
    [
        evaluated(10, 9, 10),
        balanced(10, 9, 10),
        deployed(9),
        deployed(old_after=(0, 9)),
        deployed(new_before=(1, 1)),
        deployed(agreement={"images": 3, "equal_predictions": 0, "spikes": 0, "equal_spikes": 0}),
    ],
)
def test_numbers_of_too_few_cases_do_not_leave(
    said: tuple[Instruction, Answer], tmp_path: Path
) -> None:
    with pytest.raises(SiteRefused, match="fewer than 10 cases") as caught:
        allowed(*said, limits(reporting={"min_cases_per_class": 10}), tmp_path)
    assert caught.value.code == "declined"


def test_what_is_no_answer_does_not_leave(tmp_path: Path) -> None:
    instruction, answer = evaluated(10, 10, 10)
    handshake = Instruction(
        "handshake", HandshakeAsk(protocol=1, run="r", classes=CLASSES, config=QanaConfig())
    )
    array = {"pixels": np.zeros(3, np.float32)}
    for asked, said in [
        (instruction, Answer(error="Patient Mueller")),
        (None, Answer(error="Patient Mueller")),
        (None, answer),
        (instruction, Answer(answer.reply, error="internal-error")),
        (instruction, Answer(error="internal-error", arrays=array)),
        (instruction, Answer(answer.reply, arrays=array)),
        (instruction, Answer(answer.reply[:-1] + ', "note": "Patient Mueller"}')),
        (handshake, answer),
    ]:
        with pytest.raises(ValueError):
            allowed(asked, said, Policy(), tmp_path)


def test_every_kind_of_contents_has_a_name() -> None:
    instruction, answer = deployed()
    assert contents(instruction, answer) == {
        "agreement", "case numbers", "counts", "hits", "neurons", "software", "spikes", "times",
        "version",
    }  # fmt: skip
    assert contents(None, Answer(error="declined")) == {"error code"}
    update = Answer('{"examples": 1, "loss": 0.5, "seconds": 1}', arrays=arrays(0))
    assert contents(Instruction("train", TRAIN), update) == {
        "case numbers", "loss", "times", "weights"
    }  # fmt: skip


# -- privacy ----------------------------------------------------------------------------------

TRAIN = TrainAsk(
    **ASK, phase="float", epochs=1, batch=4, learning_rate=1e-2, prior_strength=1.0, proximal=0.0,
    balance="prior", seed=0,
)  # fmt: skip
EXAMPLES = 40


def arrays(seed: int, size: float = 1.0) -> NamedWeights:
    rng = np.random.default_rng(seed)
    found = {
        "stem/kernel": rng.normal(size=(3, 3, 8)),
        "bn/moving_mean": rng.normal(size=8),
        "bn/moving_variance": 0.01 + rng.random(8),
        "head/bias": rng.normal(size=3),
    }
    return {name: (size * array).astype(np.float32) for name, array in found.items()}


RECEIVED = arrays(0)
TRAINED = {
    name: (array + np.float32(0.02) * np.abs(arrays(1)[name])).astype(np.float32)
    for name, array in RECEIVED.items()
}


def norm(weights: NamedWeights) -> float:
    squares = [np.square(weights[n].astype(np.float64) - RECEIVED[n]).sum() for n in RECEIVED]
    return float(np.sqrt(sum(squares)))


def privately(home: Path, trained: NamedWeights = TRAINED, **privacy: float) -> NamedWeights:
    policy = limits(privacy=privacy).privacy
    return protected(trained, RECEIVED, policy, TRAIN, EXAMPLES, home)


def accepted(weights: NamedWeights) -> None:
    reply = json.dumps({"examples": EXAMPLES, "loss": 0.5, "seconds": 1.0})
    check_update(Answer(reply, arrays=weights), RECEIVED, TRAIN, EXAMPLES)


def test_without_a_norm_the_update_is_as_it_was(tmp_path: Path) -> None:
    assert privately(tmp_path) is TRAINED


def test_a_long_update_is_scaled_and_a_short_one_left(tmp_path: Path) -> None:
    length = norm(TRAINED)
    clipped = privately(tmp_path, clip_norm=length / 3)
    assert norm(clipped) == pytest.approx(length / 3, rel=1e-4)
    for name, array in clipped.items():  # in the same direction
        moved = TRAINED[name] - RECEIVED[name]
        np.testing.assert_allclose(array - RECEIVED[name], moved / 3, atol=1e-6)
    accepted(clipped)
    same = privately(tmp_path, clip_norm=2 * length)
    for name, array in same.items():
        np.testing.assert_allclose(array, TRAINED[name], atol=1e-6)
    assert list(same) == list(RECEIVED) and not list(tmp_path.iterdir())
    unmoved = privately(tmp_path, RECEIVED, clip_norm=1.0)
    assert norm(unmoved) == 0.0


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e4), st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_whatever_the_noise_the_coordinator_takes_the_update(
    tmp_path_factory: pytest.TempPathFactory, clip_norm: float, epsilon: float, seed: int
) -> None:
    home = tmp_path_factory.getbasetemp()
    trained = {n: RECEIVED[n] + np.float32(0.02) * (arrays(seed)[n] > 0) for n in RECEIVED}
    accepted(privately(home, trained, clip_norm=clip_norm, epsilon=epsilon))


@pytest.mark.parametrize("epsilon", [0.01, 1.0, 100.0])
def test_noised_statistics_are_not_unlike_all_others(epsilon: float, tmp_path: Path) -> None:
    steps = optimizer_steps(TRAIN, EXAMPLES)
    noised = privately(tmp_path, clip_norm=1.0, epsilon=epsilon)
    honest = {f"site-{n}": (TRAINED, steps) for n in range(3)}
    assert outlying_statistics({**honest, "noised": (noised, steps)}, RECEIVED) == set()


def test_the_noise_has_the_deviation_of_the_mechanism(tmp_path: Path) -> None:
    privacy = limits(privacy={"clip_norm": 0.01, "epsilon": 20.0, "delta": 1e-5}).privacy
    expected = 0.02 * np.sqrt(2 * np.log(1.25e5)) / 20
    assert noise_deviation(privacy) == pytest.approx(expected)
    assert noise_deviation(privacy.model_copy(update={"sensitivity": 0.01})) == pytest.approx(
        expected / 2
    )
    quiet = privately(tmp_path, clip_norm=0.01)
    drawn = []
    for seed in range(40):  # other updates, other noise
        trained = {n: TRAINED[n] + np.float32(1e-6 * seed) for n in RECEIVED}
        noised = privately(tmp_path, trained, clip_norm=0.01, epsilon=20.0)
        drawn.append((noised["stem/kernel"] - quiet["stem/kernel"]).ravel())
    noise = np.concatenate(drawn)
    assert noise.std() == pytest.approx(expected, rel=0.05)
    assert abs(noise.mean()) < 4 * expected / np.sqrt(len(noise))


def test_the_same_update_gets_the_same_noise_and_any_other_another(tmp_path: Path) -> None:
    noise: dict[str, Any] = {"clip_norm": 0.1, "epsilon": 10.0}
    np.random.seed(0)  # noqa: NPY002 (whoever else seeds it)
    first = privately(tmp_path, **noise)
    state = np.random.get_state()[1][:3].tolist()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    assert np.random.get_state()[1][:3].tolist() == state  # noqa: NPY002 (as it was before)
    again = privately(tmp_path, **noise)
    assert all(np.array_equal(first[n], again[n]) for n in first)
    nearly = {n: array.copy() for n, array in TRAINED.items()}
    nearly["head/bias"][0] += 1e-6
    other = privately(tmp_path, nearly, **noise)

    def is_other(found: NamedWeights) -> bool:
        equal = sum(np.count_nonzero(first[n] == found[n]) for n in first)
        # A few round to the same float32 by chance.
        return bool(equal <= 0.01 * sum(first[n].size for n in first))

    assert is_other(other)
    key = tmp_path / NOISE_KEY
    assert key.stat().st_mode & 0o077 == 0 and len(key.read_bytes()) == 32
    key.unlink()
    new_key = privately(tmp_path, **noise)
    assert is_other(new_key)
    key.write_bytes(b"short")
    with pytest.raises(StateDamaged, match="remove it to get a new one"):
        privately(tmp_path, **noise)


def test_an_update_without_a_norm_is_refused(tmp_path: Path) -> None:
    broken = {**TRAINED, "head/bias": np.array([0, np.nan, 0], np.float32)}
    with pytest.raises(ValueError, match="not finite"):
        privately(tmp_path, broken, clip_norm=1.0)
    with pytest.raises(ValueError, match="other names"):
        privately(tmp_path, {"head/bias": TRAINED["head/bias"]}, clip_norm=1.0)


def test_the_door_clips_what_training_gives(tmp_path: Path) -> None:
    reply = json.dumps({"examples": EXAMPLES, "loss": 0.5, "seconds": 1.0})
    instruction = Instruction("train", TRAIN, arrays=RECEIVED)
    answer = Answer(reply, arrays=TRAINED)
    clipped = allowed(instruction, answer, limits(privacy={"clip_norm": 0.05}), tmp_path)
    assert norm(clipped.arrays) <= 0.05 * (1 + 1e-4) and clipped.reply == reply
    with pytest.raises(SiteRefused, match="take_part"):
        allowed(instruction, answer, limits(training={"take_part": False}), tmp_path)


def test_fewer_epochs_than_asked_are_within_the_coordinators_reach() -> None:
    three = TRAIN.model_copy(update={"epochs": 3})
    assert farthest(TRAIN, EXAMPLES) < farthest(three, EXAMPLES)


# -- acceptance -------------------------------------------------------------------------------


def test_a_program_below_the_minimum_is_not_installed_where_none_serves(tmp_path: Path) -> None:
    client = EdgeClient(tmp_path, EdgeSettings(minimum=1.0))
    with pytest.raises(SiteRefused, match=r"below the minimum of 1: the chip head's") as caught:
        install(client, 1, MISLABELLED)
    assert caught.value.code == "below-minimum"
    assert not client.serves("0" * 64)
    assert not list((tmp_path / "versions").glob("*"))
    lenient = EdgeClient(tmp_path, EdgeSettings(minimum=0.1))
    assert install(lenient, 2).switched  # a later one that is good enough


def test_a_program_below_the_minimum_is_kept_out(tmp_path: Path) -> None:
    client = EdgeClient(tmp_path, EdgeSettings(minimum=0.5, tolerance=1.0))
    assert install(client, 1).switched
    report = install(client, 2, MISLABELLED)
    assert not report.switched and report.serving == "1"
    assert report.reason.startswith("below the minimum of 0.5")
