"""A version fine-tuned for one site: what is made, when it is served, when it is not tried."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from common.akida_runtime import Program
from common.bundle import PROGRAM, Bundle, make_bundle
from common.classes import ClassMap
from common.data.cases import Cases
from common.messages import DeployAsk, DeployReply, Instruction, TrainAsk
from common.qana.convert import convert
from common.qana.weights import NamedWeights
from common.test_time_views import over_symmetries
from edge_client.case_journal import CaseJournal, LabelledCase
from edge_client.fine_tuning import FineTuned, fine_tune
from edge_client.own_program import own_program
from edge_client.policy import POLICY
from edge_client.service import EdgeClient
from edge_client.site import SiteData, SiteFolder
from edge_client.site_tasks import answer
from edge_client.state_lock import state_in_use
from edge_client.training import train_as_asked
from edge_client.training_time import spent_seconds
from server.bundle_delivery import files_for_sites
from tests.edge_client.cases import CLASSES, some_cases
from tests.qana.tiny import TINY, tiny_weights

EPOCHS = 12


def asked(**changed: object) -> TrainAsk:
    settings: dict[str, object] = {
        **{"run": "r", "round": 1, "phase": "qat", "classes": CLASSES, "config": TINY},
        **{"epochs": EPOCHS, "batch": 16, "learning_rate": 1e-2, "seed": 3},
        **{"prior_strength": 1.0, "proximal": 0.0, "balance": "prior"},
    }
    return TrainAsk.model_validate({**settings, **changed})


def deployment(**changed: object) -> DeployAsk:
    return DeployAsk(
        **{"run": "r", "round": 1, "version": 1, "seed": 5},
        original_classes=len(CLASSES),
        all_symmetries=True,
        fine_tuning=asked(**changed),
    )


def bundle(weights: NamedWeights | None = None) -> Bundle:
    """The version of a quantized network, by default one of random weights, which knows nothing."""
    floating, quantized, program = tiny_weights()
    if weights is not None:
        quantized, program = weights, convert(weights, TINY, len(CLASSES))
    return make_bundle(
        program.to_bytes(),
        quantized,
        floating,
        **{"run": "r", "version": 1, "parent": 0, "phase": "qat", "classes": CLASSES},
        **{"config": TINY, "seed": 5, "ranges": (), "fit": {}, "metrics": {}},
    )


@pytest.fixture
def folder(tmp_path: Path) -> SiteFolder:
    """A site whose classes are easily told apart."""
    nothing = Cases.empty(TINY.input_size)
    folder = SiteFolder(tmp_path / "site")
    folder.path.mkdir()
    folder.write(
        SiteData(
            **{"name": "site", "classes": ClassMap(CLASSES)},
            train=some_cases(40, seed=1),
            validation=some_cases(15, seed=2),
            test=some_cases(15, seed=3),
            arrivals=nothing,
            arrival_rounds=np.zeros(0, np.int64),
        )
    )
    return folder


def own(folder: SiteFolder, **changed: object) -> Program | None:
    return own_program(deployment(**changed), bundle(), folder, folder.read())


def deployed(folder: SiteFolder, version: Bundle | None = None, **changed: object) -> DeployReply:
    files = files_for_sites(version or bundle())
    found = answer(Instruction("deploy", deployment(**changed), files=files), folder)
    assert not found.error
    return DeployReply.model_validate_json(found.reply)


def accuracy(program: Program, cases: Cases) -> float:
    scores = over_symmetries(program.predict_potentials)(cases.images)
    return float((scores.argmax(axis=1) == cases.labels).mean())  # as many cases of each class


@pytest.mark.parametrize("all_symmetries", [False, True])
def test_the_own_network_is_the_mean_of_both_and_judged_as_it_answers(
    all_symmetries: bool, folder: SiteFolder
) -> None:
    data, weights = folder.read(), tiny_weights()[1]
    told: list[int] = []
    found = fine_tune(
        *(asked(), weights, data.train, data.validation, all_symmetries),
        lambda epoch, loss: told.append(epoch),
    )
    assert told == list(range(1, EPOCHS + 1))
    trained = train_as_asked(asked(), weights, data.train).weights
    for name, value in found.weights.items():
        np.testing.assert_allclose(value, (weights[name] + trained[name]) / 2, rtol=1e-5, atol=1e-6)
    programs = [convert(w, TINY, len(CLASSES)) for w in (weights, found.weights)]
    if all_symmetries:
        expected = [accuracy(program, data.validation) for program in programs]
    else:
        images, labels = data.validation.images, data.validation.labels
        answers = [program.predict_potentials(images).argmax(axis=1) for program in programs]
        expected = [float((a == labels).mean()) for a in answers]
    assert [found.before, found.after] == pytest.approx(expected)
    assert found.is_better and found.after > found.before + 0.2


@pytest.mark.parametrize(("before", "after", "better"), [(0.5, 0.6, 1), (0.5, 0.5, 0), (0.5, 0, 0)])
def test_equal_is_not_better(before: float, after: float, better: int) -> None:
    assert FineTuned({}, before, after).is_better is bool(better)


def test_a_better_program_is_put_into_service(
    folder: SiteFolder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="fedqana.site")
    reply = deployed(folder)
    assert reply.switched and reply.fine_tuned and reply.neurons is None
    served = (folder.state / "versions" / "r.1" / "program.fbz").read_bytes()
    of_all = bundle().files[PROGRAM]
    test = folder.read().test
    assert accuracy(Program.from_bytes(served), test) > 0.2 + accuracy(
        Program.from_bytes(of_all), test
    )
    assert EdgeClient(folder.state, read_only=True).status()["fine_tuned"]
    assert "on 45 validation cases instead of" in caplog.text


def test_one_that_is_no_better_is_not(folder: SiteFolder) -> None:
    reply = deployed(folder, learning_rate=1e-12)
    assert reply.switched and not reply.fine_tuned
    served = (folder.state / "versions" / "r.1" / "program.fbz").read_bytes()
    assert served == bundle().files[PROGRAM]


def test_one_that_is_kept_out_gives_way_to_the_one_that_came(
    folder: SiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    untrained = tiny_weights()[1]
    trained = train_as_asked(asked(), untrained, folder.read().train).weights
    # Better by its own head, for all that is told, and worse by the chip's, which has to accept it.
    monkeypatch.setattr(
        "edge_client.own_program.fine_tune", lambda *given: FineTuned(untrained, 0.0, 1.0)
    )
    (folder.path / POLICY).write_text("[acceptance]\nmin_balanced_accuracy = 0.5\n")
    version = bundle(trained)
    reply = deployed(folder, version)
    assert reply.switched and not reply.fine_tuned
    served = (folder.state / "versions" / "r.1" / "program.fbz").read_bytes()
    assert served == version.files[PROGRAM]


def test_the_policy_s_epochs_hold(folder: SiteFolder) -> None:
    found = []
    for epochs, most in ((6, 0), (EPOCHS, 6), (EPOCHS, 0)):
        (folder.path / POLICY).write_text(f"[training]\nmax_epochs = {most}\n")
        program = own(folder, epochs=epochs)
        found.append(None if program is None else program.to_bytes())
    assert found[0] == found[1] != found[2]


def test_its_time_is_counted_and_the_service_goes_on_meanwhile(folder: SiteFolder) -> None:
    (folder.path / POLICY).write_text("[training]\nhours_per_day = 1.0\n")
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(own, folder, epochs=40)
        free = 0
        while not found.done():
            with state_in_use(folder.state, wait=0.5):
                free += 1
            time.sleep(0.1)
        found.result()
    assert free > 2
    assert spent_seconds(folder.path, datetime.now().date()) > 0


@pytest.mark.parametrize(
    "policy", ["fine_tune = false", "take_part = false", "hours_per_day = 0.0"]
)
def test_the_policy_may_forbid_it(
    policy: str, folder: SiteFolder, caplog: pytest.LogCaptureFixture
) -> None:
    (folder.path / POLICY).write_text(f"[training]\n{policy}\n")
    reply = deployed(folder)
    assert reply.switched and not reply.fine_tuned
    declined = "version 1 is not fine-tuned here: training is declined" in caplog.text
    assert declined is not policy.startswith("fine_tune")


def test_a_site_that_was_taught_an_unknown_class_serves_the_program_of_all(
    folder: SiteFolder,
) -> None:
    assert own(folder) is not None
    image = np.zeros(folder.read().train.images.shape[1:], np.uint8)
    journal = CaseJournal(folder.state / "cases.journal")
    journal.append(LabelledCase("new", "new", "xyz", 0, image))
    assert own(folder) is None


def test_a_class_that_is_taught_while_the_site_trains_counts_too(
    folder: SiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.zeros(folder.read().train.images.shape[1:], np.uint8)

    def taught_meanwhile(*given: object) -> FineTuned:
        journal = CaseJournal(folder.state / "cases.journal")
        journal.append(LabelledCase("new", "new", "xyz", 0, image))
        return fine_tune(*given)  # type: ignore[arg-type]

    monkeypatch.setattr("edge_client.own_program.fine_tune", taught_meanwhile)
    reply = deployed(folder)
    assert reply.switched and not reply.fine_tuned


def test_training_cases_of_a_class_that_the_version_lacks(folder: SiteFolder) -> None:
    data = folder.read()
    more = ClassMap((*CLASSES, "xyz"))
    labels = data.train.labels.copy()
    labels[0] = len(CLASSES)
    other = replace(data, classes=more, train=replace(data.train, labels=labels))
    assert own_program(deployment(), bundle(), folder, other) is None


def test_without_validation_lesions_nothing_is_judged(folder: SiteFolder) -> None:
    blind = replace(folder.read(), validation=Cases.empty(TINY.input_size))
    assert own_program(deployment(), bundle(), folder, blind) is None


def test_whatever_goes_wrong_the_site_gets_the_version(
    folder: SiteFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def out_of_memory(*given: object) -> FineTuned:
        raise MemoryError("no more memory")

    monkeypatch.setattr("edge_client.own_program.fine_tune", out_of_memory)
    reply = deployed(folder)
    assert reply.switched and not reply.fine_tuned
    assert "version 1 is not fine-tuned here" in caplog.text
