"""Whose class shares the sites are asked to correct their loss by."""

from pathlib import Path

import pytest
from flwr.app import Context, Message

from common.flower_records import unpack_instruction
from common.messages import TrainAsk
from edge_client.flower import app as deployed
from edge_client.site import SiteFolder
from tests.support.hostile import run_with, site_folders
from tests.support.tiny_run import create_tiny, state_of


class Listening:
    """The deployed ClientApp; what it is asked in training is kept, by round."""

    def __init__(self) -> None:
        self.priors: dict[int, set[tuple[float, ...]]] = {}

    def __call__(self, message: Message, context: Context) -> Message:
        if message.metadata.message_type == "train":
            ask = unpack_instruction(message).ask
            assert isinstance(ask, TrainAsk)
            self.priors.setdefault(ask.round, set()).add(ask.class_prior)
        return deployed(message, context)


def test_from_round_2_on_all_sites_correct_by_the_validation_lesions_of_all(tmp_path: Path) -> None:
    folder, heard = create_tiny(tmp_path), Listening()
    run_with(folder, heard)
    assert heard.priors[1] == {()}  # nothing was counted yet: each site's own
    (shares,) = heard.priors[2]
    sites = [SiteFolder(path).read() for path in site_folders(folder)]
    labels = [sites[0].classes.codes[y] for site in sites for y in site.validation.labels]
    state = state_of(folder)
    assert state is not None
    counts = [labels.count(code) for code in state.classes]
    assert min(counts) > 0
    assert shares == pytest.approx([n / len(labels) for n in counts])
    assert state.class_prior == shares  # the same in the checkpoint, for a resumed run


@pytest.mark.parametrize("settings", [{"class_prior": "site"}, {"balance": "none"}])
def test_not_where_the_plan_says_otherwise(settings: dict[str, str], tmp_path: Path) -> None:
    folder, heard = create_tiny(tmp_path, **settings), Listening()
    run_with(folder, heard)
    assert heard.priors == {1: {()}, 2: {()}}
