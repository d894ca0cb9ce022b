"""What is remembered within a process is what would be computed again."""

from typing import Any

import akida
import numpy as np
import pytest
from numpy.typing import NDArray

from common.akida_runtime import LearningProgram, Program
from common.akida_runtime.fit import _mapped
from common.akida_runtime.spike_head import spikes_and_potentials
from common.akida_runtime.spike_memory import SpikeMemory, body_key
from tests.akida_runtime.tiny import tiny_program, toy_cases


def one_by_one(program: Program, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Spikes of images that each ran by itself, which nothing remembers."""
    return np.concatenate([program.spikes(image[None]) for image in images])


def changed(program: Program, layer: int, name: str, change: Any) -> Program:
    """The program with one variable of one layer changed."""
    model = akida.Model(layers=program.model.layers)
    values = np.array(model.layers[layer].get_variable(name))
    model.layers[layer].set_variable(name, change(values))
    return Program(model)


def test_images_known_new_and_repeated() -> None:
    program = tiny_program()
    images, _ = toy_cases(6, seed=21)
    expected = one_by_one(program, images)
    np.testing.assert_array_equal(program.spikes(images[:9]), expected[:9])
    mixed = [20, 3, 20, 8, 11]
    np.testing.assert_array_equal(program.spikes(images[mixed]), expected[mixed])
    returned = program.spikes(images)
    np.testing.assert_array_equal(returned, expected)
    returned[:] = 7  # the caller's own
    np.testing.assert_array_equal(program.spikes(images), expected)


def test_another_body_has_other_spikes() -> None:
    program = tiny_program()
    images, _ = toy_cases(4, seed=22)
    before = program.spikes(images)
    other = changed(program, 1, "threshold", lambda t: t + 40)
    assert body_key(other.body.layers) != body_key(program.body.layers)
    np.testing.assert_array_equal(other.spikes(images), one_by_one(other, images))
    assert (other.spikes(images) != before).any()
    same = LearningProgram.create(program, 3, 2, 16, 0.1, seed=0).complete()
    assert body_key(same.body.layers) == body_key(program.body.layers)


def test_the_least_recently_used_go_first() -> None:
    ran: list[int] = []

    def run(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        ran.extend(int(image[0, 0, 0]) for image in images)
        return images[:, 0, 0, :1]

    def ask(memory: SpikeMemory, *names: int) -> list[int]:
        images = np.array(names, np.uint8)[:, None, None, None]
        return [int(row[0]) for row in memory.spikes(b"", images, 1, run)]

    memory = SpikeMemory(kept=3)
    assert ask(memory, 1, 2, 3) == [1, 2, 3]
    assert ask(memory, 1, 4) == [1, 4]
    assert ran == [1, 2, 3, 4]
    assert ask(memory, 3, 1, 2) == [3, 1, 2]
    assert ran == [1, 2, 3, 4, 2]
    assert ask(memory, 5, 6, 7, 8) == [5, 6, 7, 8]  # more than it keeps


def test_one_pass_gives_what_two_give() -> None:
    program = tiny_program()
    images, _ = toy_cases(10, seed=23)
    spikes, potentials = spikes_and_potentials(program, images)
    np.testing.assert_array_equal(spikes, one_by_one(program, images))
    np.testing.assert_array_equal(potentials, program.predict_potentials(images))


def test_events_of_each_layer_are_those_of_the_whole_body() -> None:
    images, _ = toy_cases(5, seed=24)
    program = tiny_program()
    body = akida.Model(layers=program.body.layers)
    expected = {}
    while body.layer_count:
        outputs = body.forward(images)
        expected[body.layers[-1].name] = np.count_nonzero(outputs) / len(images)
        body.pop_layer()
    assert program.mean_spikes(images) == expected
    assert list(program.mean_spikes(images)) == [layer.name for layer in program.body.layers]


VALUES = {
    "as they are": (1, "threshold", lambda v: v),
    "other thresholds": (2, "threshold", lambda v: v + 3),
    "thresholds at their end": (2, "threshold", lambda v: np.full_like(v, 2**19 - 1)),
    "thresholds that fit in no register": (2, "threshold", lambda v: np.full_like(v, 2**19)),
    "the smallest step": (1, "act_step", lambda v: np.full_like(v, 1 / 16)),
    "the largest step": (1, "act_step", lambda v: np.full_like(v, 65535)),
    "a step that fits in no register": (1, "act_step", lambda v: np.full_like(v, 65536)),
    "no weights": (0, "weights", np.zeros_like),
    "sparse weights": (1, "weights", lambda v: v * (np.arange(v.size).reshape(v.shape) % 9 == 0)),
}


@pytest.mark.parametrize("kind", VALUES)
def test_a_remembered_fit_is_the_programs_own(kind: str) -> None:
    tiny_program().fit_report("AKD1000")  # remembered from here on
    program = changed(tiny_program(), *VALUES[kind])
    expected = _mapped(akida.Model(layers=program.model.layers), "AKD1000")
    assert program.fit_report("AKD1000") == expected
    assert expected.fits is (kind not in ("no weights",) and "no register" not in kind)


def test_a_fit_is_of_the_shape_that_was_asked_for() -> None:
    learner = LearningProgram.create(tiny_program(), 3, 2, 16, 0.1, seed=0)
    small = learner.complete().fit_report("AKD1000")
    learner.add_class()
    grown = learner.complete()
    assert grown.fit_report("AKD1000") == _mapped(grown.model, "AKD1000") != small
