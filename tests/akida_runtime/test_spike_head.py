import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.akida_runtime import Program
from common.akida_runtime.spike_head import SpikeHead
from common.errors import BundleDamaged
from tests.akida_runtime.tiny import tiny_program, toy_cases


def test_logits_from_spikes_are_the_programs() -> None:
    images, _ = toy_cases(100, seed=7)
    program = tiny_program()
    logits = SpikeHead(program).potentials(program.spikes(images))
    assert len(np.unique(logits)) > 100
    np.testing.assert_array_equal(logits, program.predict_potentials(images))


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_any_picture(seed: int, n: int) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    program = tiny_program()
    logits = SpikeHead(program).potentials(program.spikes(images))
    np.testing.assert_array_equal(logits, program.predict_potentials(images))


def test_no_image() -> None:
    assert SpikeHead(tiny_program()).potentials(np.zeros((0, 64), np.uint8)).shape == (0, 3)


def test_a_head_of_another_kind_is_refused() -> None:
    import akida

    model = akida.Model(layers=tiny_program().model.layers)
    model.pop_layer()
    model.add(akida.FullyConnected(3, "head", weights_bits=4, act_bits=4))
    with pytest.raises(BundleDamaged, match="'head' is no dense layer of logits"):
        SpikeHead(Program(model))
