"""Commands write the crops out, because the module that has them is slow to import."""

import click
import pytest

from common.saliency.choice import CROPS, SITE_CROPS
from edge_client.commands.client import client
from server.commands.model import model
from server.commands.rounds import rounds
from simulation.commands.simulate import simulate


@pytest.mark.parametrize(
    ("command", "crops"),
    [
        (rounds.commands["start"], SITE_CROPS),
        (client.commands["join"], SITE_CROPS),
        (model.commands["evaluate"], CROPS),
        (simulate, CROPS),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_command_offers_the_crops_that_there_are(
    command: click.Command, crops: tuple[str, ...]
) -> None:
    option = next(p for p in command.params if p.name == "crop")
    assert isinstance(option.type, click.Choice)
    assert tuple(option.type.choices) == crops
