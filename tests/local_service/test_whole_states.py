"""Every answer comes from one whole state, whatever is installed and learned meanwhile."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

from edge_client.local_service.snapshot import Snapshot
from edge_client.service import EdgeClient, EdgeSettings
from edge_client.state_lock import state_in_use
from tests.akida_runtime.tiny import tiny_program
from tests.cli.command import fedqana
from tests.edge_client.cases import arriving
from tests.edge_client.test_service import CLASSES, HELD_BACK, MISLABELLED, STORE, install
from tests.local_service.running import (
    PICTURES,
    ROOT,
    decided,
    lenient,
    make_home,
    png,
    running,
    scores_of,
)

SHOWN = PICTURES[:5]
VERSIONS = range(2, 7)

State = tuple[str, str]
Known = dict[State, list[dict[str, float]]]


def known_state(state_dir: Path) -> tuple[State, list[dict[str, float]]]:
    """The state in service and what `EdgeClient.decide` answers from it; the lock is held."""
    client = EdgeClient(state_dir, read_only=True)
    snapshot = Snapshot.of(client, state_dir)
    state = snapshot.model_version, snapshot.head
    return state, [decided(client, image) for image in SHOWN]


def test_a_snapshot_answers_over_all_symmetries_as_the_client_does(tmp_path: Path) -> None:
    state_dir = make_home(tmp_path / "home", installed=False)
    client = EdgeClient(state_dir, EdgeSettings(all_symmetries=True))
    client.install(tiny_program(), "1", 1, CLASSES, STORE, HELD_BACK, made_of="ab")
    client.learn(arriving(1, seed=60, round_number=1)[0])
    snapshot = Snapshot.of(client, state_dir)
    answers = [decided(client, image) for image in SHOWN]
    for image, answer in zip(SHOWN, answers, strict=True):
        assert dict(zip(snapshot.codes, snapshot.scores(image).tolist(), strict=True)) == answer
    with running(tmp_path / "home") as service, service.client() as remote:
        assert remote.status().all_symmetries and remote.status().fine_tuned
        shown = fedqana("client", "status", "--home", "home", folder=tmp_path)
        assert "by eight views of a picture" in shown.stdout, shown.stderr
        assert ", fine-tuned here" in shown.stdout
        assert [scores_of(remote.classify(png(image))) for image in SHOWN] == answers


def install_versions(state_dir: Path, found: Path) -> None:
    """Install one version after the other, the state before and after each written down."""
    states = []
    for version in VERSIONS:
        with state_in_use(state_dir):
            states.append(known_state(state_dir))
            install(lenient(state_dir), version, STORE if version % 2 else MISLABELLED)
            time.sleep(0.3)  # the new version is current, and the lock still held
            states.append(known_state(state_dir))
        time.sleep(0.3)
    found.write_text(json.dumps(states))


def test_no_answer_is_of_two_states(tmp_path: Path) -> None:
    state_dir = make_home(tmp_path / "home")
    found = tmp_path / "states.json"
    answers: list[list[tuple[State, int, dict[str, float]]]] = [[] for _ in range(8)]
    longest = [0.0] * 8
    known: Known = {}
    done = threading.Event()

    with running(tmp_path / "home") as service:

        def ask(number: int) -> None:
            with service.client() as client:
                while not done.is_set():
                    shown = len(answers[number]) % len(SHOWN)
                    started = time.monotonic()
                    response = client.classify(png(SHOWN[shown]))
                    longest[number] = max(longest[number], time.monotonic() - started)
                    state = response.state.model_version, response.state.head
                    answers[number].append((state, shown, scores_of(response)))

        def teach() -> None:
            """Learn case after case; each state made so is written down before the next one."""
            cases = arriving(40, seed=80, round_number=1)
            with service.client() as client:
                for case in cases:
                    if done.is_set():
                        return
                    client.learn(png(case.image), case.code, case.case_id)
                    with state_in_use(state_dir, shared=True):
                        state, decisions = known_state(state_dir)
                    known[state] = decisions

        with state_in_use(state_dir, shared=True):
            state, decisions = known_state(state_dir)
        known[state] = decisions
        threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
        threads.append(threading.Thread(target=teach))
        for thread in threads:
            thread.start()
        script = "import sys; from pathlib import Path; from tests.local_service import "
        script += "test_whole_states as t; t.install_versions(Path(sys.argv[1]), Path(sys.argv[2]))"
        command = [sys.executable, "-c", script, str(state_dir), str(found)]
        trainer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        done.set()
        for thread in threads:
            thread.join()

    assert trainer.returncode == 0, trainer.stderr
    for pair, decisions in json.loads(found.read_text()):
        known[(pair[0], pair[1])] = decisions
    everything = [answer for mine in answers for answer in mine]
    seen = {state for state, _, _ in everything}
    assert seen <= set(known)
    for state, shown, scores in everything:
        assert scores == known[state][shown]
    assert len({version for version, _ in seen}) == 1 + len(VERSIONS)
    assert len(seen) > 1 + len(VERSIONS)  # some of them after a Learn
    different = {json.dumps(known[state], sort_keys=True) for state in seen}
    assert len(different) > 3  # a mix would have shown
    assert min(map(len, answers)) > 20 and max(longest) < 5
