"""Many sites: how many messages are under way at once, and what of them is held once for all."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from flwr.app import Message
from flwr.supercore.task_identity import TaskIdentity

from common.flower_records import pack_instructions, unpack_instruction
from common.messages import PROTOCOL, EvaluateAsk, HandshakeAsk, HandshakeReply, Instruction
from edge_client.flower import app
from server.flower import FlowerTransport
from simulation.in_process import InProcessGrid
from tests.support.hostile import site_folders
from tests.support.tiny_run import TINY, create_tiny, tiny_plan

SITES = 5


class CountingGrid(InProcessGrid):
    """Counts the messages that wait."""

    most = 0

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = super().push_messages(messages)
        self.most = max(self.most, len(self._waiting))
        return ids


def test_no_more_are_under_way_than_wanted_and_all_answer(tmp_path: Path) -> None:
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    sites = site_folders(create_tiny(tmp_path, {"sites": f"iid:{SITES}"}))
    grid = CountingGrid(app, sites)
    plan = tiny_plan()
    ask = HandshakeAsk(protocol=PROTOCOL, run=plan.run, classes=plan.classes, config=TINY)
    told: list[list[str]] = []
    transport = FlowerTransport(grid, at_once=2)
    nodes = transport.nodes()
    found = transport.exchange(
        {node: Instruction("handshake", ask) for node in nodes},
        120.0,
        lambda missing, left: told.append(missing),
    )
    assert grid.most == 2
    names = [HandshakeReply.model_validate_json(found[n].answer.reply).site for n in nodes]  # type: ignore[union-attr]
    assert names == [folder.name for folder in sites]
    assert [len(missing) for missing in told] == [4, 3, 2, 1]


def test_weights_that_all_sites_get_are_packed_once() -> None:
    weights = {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}
    teacher = {"b": np.ones(2, np.float32)}
    ask = EvaluateAsk(
        run="r", round=1, phase="float", classes=("a", "b"), config=TINY, calibrate=False
    )
    same = [Instruction("evaluate", ask, arrays=weights, teacher=teacher) for _ in range(3)]
    other = Instruction("evaluate", ask, arrays={"a": np.zeros(3, np.float32)})
    contents = pack_instructions([*same, other])
    assert len({id(c.array_records["arrays"]["packed"].data) for c in contents}) == 2
    for content, instruction in zip(contents, [*same, other], strict=True):
        message = Message(content, dst_node_id=2, message_type="evaluate")
        back = unpack_instruction(message)
        np.testing.assert_array_equal(back.arrays["a"], instruction.arrays["a"])
        assert back.teacher.keys() == instruction.teacher.keys()
