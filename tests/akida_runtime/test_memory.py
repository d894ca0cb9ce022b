import gc

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


def test_programs_that_go_out_of_use_leave_nothing_in_memory() -> None:
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
    # One copy of each that stays would be 40; other tests of this process leave a few.
    assert resident() - before < 20, "MiB more after 20 programs of 2 MB each"
