import hashlib
import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from common.akida_runtime import LearningProgram, Program
from common.errors import BundleDamaged, SettingsError
from tests.akida_runtime.tiny import tiny_program, toy_cases


def learner(seed: int = 7, classes: int = 3) -> LearningProgram:
    return LearningProgram.create(
        tiny_program(),
        n_classes=classes,
        neurons_per_class=5,
        num_weights=20,
        competition=0.1,
        seed=seed,
    )


def shuffled(n_per_class: int, seed: int, classes: int = 3) -> tuple[NDArray, NDArray]:
    images, labels = toy_cases(n_per_class, seed, classes)
    order = np.random.default_rng(seed).permutation(len(labels))
    return images[order], labels[order]


def accuracy(program: LearningProgram, classes: int) -> list[float]:
    images, labels = toy_cases(30, seed=99, classes=classes)
    found = program.classify(images).argmax(axis=1)
    return [float((found[labels == k] == k).mean()) for k in range(classes)]


def test_learns() -> None:
    program = learner()
    before = np.mean(accuracy(program, 3))
    program.learn(*shuffled(20, seed=1))
    assert before < 0.7
    assert min(accuracy(program, 3)) > 0.9
    assert (program.weights.sum(axis=0) == 20).all()


def test_learning_from_spikes_equals_learning_through_the_whole_program() -> None:
    images, labels = shuffled(20, seed=1)
    from_spikes, whole = learner(), learner()
    from_spikes.learn(images, labels, tiny_program().spikes(images))
    whole._learn_through_whole(images, labels, None)
    assert whole.to_bytes() == from_spikes.to_bytes() != learner().to_bytes()
    for image, label in zip(*shuffled(10, seed=2), strict=True):
        from_spikes.learn(image[None], np.array([label]))
        whole._learn_through_whole(image[None], np.array([label]), None)
        assert whole.to_bytes() == from_spikes.to_bytes()


def test_classify_equals_the_complete_programs_own_output() -> None:
    program = learner()
    program.learn(*shuffled(20, seed=1))
    program.add_class()
    images, _ = toy_cases(5, seed=3)
    complete = program.complete()
    potentials = complete.predict_potentials(images).reshape(-1, 4, 5).max(axis=2)
    np.testing.assert_array_equal(program.classify(images), potentials)
    akida_says = complete.model.predict_classes(images, num_classes=program.n_classes)
    np.testing.assert_array_equal(program.classify(images).argmax(axis=1), akida_says)


def test_a_fourth_class_taught_with_eight_cases() -> None:
    program = learner()
    program.learn(*shuffled(20, seed=1))
    old = program.weights
    assert program.add_class() == 3
    assert (program.n_classes, program.neurons, program.neurons_per_class) == (4, 20, 5)
    np.testing.assert_array_equal(program.weights[:, :15], old)
    images, labels = toy_cases(8, seed=5, classes=4)
    for image in images[labels == 3]:
        program.learn(image[None], np.array([3]))
    np.testing.assert_array_equal(program.weights[:, :15], old)
    recalls = accuracy(program, 4)
    assert recalls[3] > 0.6
    assert min(recalls[:3]) > 0.9


def test_a_reload_after_any_case_changes_nothing() -> None:
    straight, reloaded = learner(), learner()
    for program in (straight, reloaded):
        program.learn(*shuffled(10, seed=1))
        program.add_class()
    for image, label in zip(*shuffled(15, seed=2, classes=4), strict=True):
        reloaded = LearningProgram.from_bytes(reloaded.to_bytes(), seed=7)
        for program in (straight, reloaded):
            program.learn(image[None], np.array([label]))
        assert reloaded.to_bytes() == straight.to_bytes()
    straight.add_class()
    reloaded.add_class()
    assert reloaded.to_bytes() == straight.to_bytes()


def test_two_fresh_processes_learn_the_same_bytes() -> None:
    script = """
import hashlib
from tests.akida_runtime.test_learning import learned_bytes
print(hashlib.sha256(learned_bytes()).hexdigest())
"""
    digests = {
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
        ).stdout
        for _ in range(2)
    }
    assert digests == {hashlib.sha256(learned_bytes()).hexdigest() + "\n"}
    assert learner(seed=8).to_bytes() != learner(seed=7).to_bytes()


def learned_bytes() -> bytes:
    program = learner()
    program.learn(*shuffled(10, seed=1))
    program.add_class()
    program.learn(*shuffled(3, seed=2, classes=4))
    return program.to_bytes()


@pytest.mark.parametrize("device", ["AKD1000", "AKD1500"])
def test_maps_with_the_learning_layer(device: str) -> None:
    program = learner()
    program.learn(*shuffled(3, seed=1))
    report = program.complete().require_fit(device)
    assert report.layers_table[-1]["name"] == "learning"
    assert (report.sequences, report.passes) == (1, 1)


def test_labels_outside_the_classes_are_refused() -> None:
    images, _ = toy_cases(1, seed=0, classes=3)
    with pytest.raises(ValueError, match="outside"):
        learner().learn(images, np.array([0, 1, 3]))
    with pytest.raises(ValueError, match="outside"):
        learner().learn(images, np.array([0, 1, -1]))


def test_learning_nothing_changes_nothing() -> None:
    program = learner()
    program.learn(np.zeros((0, 32, 32, 3), np.uint8), np.zeros(0, np.int64))
    assert program.to_bytes() == learner().to_bytes()


def test_settings_that_do_not_fit() -> None:
    with pytest.raises(SettingsError, match="65 weights"):
        LearningProgram.create(tiny_program(), 3, 5, num_weights=65, competition=0.1, seed=0)


def test_a_program_without_a_learning_layer() -> None:
    with pytest.raises(BundleDamaged, match="no learning layer"):
        LearningProgram.from_bytes(tiny_program().to_bytes(), seed=0)
    assert isinstance(learner().complete(), Program)
