"""Programs that go out of use leave nothing in memory."""

import gc
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import akida
import psutil

from common.akida_runtime import LearningProgram, Program


def wide_program() -> Program:
    """Two dense layers with 2 MB of weights, so that a copy that stays is seen."""
    model = akida.Model()
    model.add(akida.InputData((1, 1, 4096), input_bits=1))
    model.add(akida.FullyConnected(512, "spikes", weights_bits=2, act_bits=1))
    model.add(akida.FullyConnected(8, "head", weights_bits=2, activation=False))
    return Program(model)


def resident() -> float:
    gc.collect()
    return float(psutil.Process().memory_info().rss / 2**20)


def growth() -> float:
    """MiB that this process grows by while 20 programs come and go."""
    stored = wide_program().to_bytes()

    def use() -> None:
        program = Program.from_bytes(stored)
        program.fit_report("AKD1000")
        LearningProgram.create(program, 3, 4, 20, 0.1, seed=0).complete()

    for _ in range(3):
        use()
    before = resident()
    for _ in range(20):
        use()
    return resident() - before


def test_programs_that_go_out_of_use_leave_nothing_in_memory() -> None:
    # A process of its own: what other tests leave behind goes at any time.
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        assert process.submit(growth).result() < 10, "MiB more after 20 programs of 2 MB each"
