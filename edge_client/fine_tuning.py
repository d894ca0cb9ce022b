"""A site's own program: the run's last network, trained on at the site for itself alone.

The coordinator's network is the mean of what all sites learned; a few more epochs on a site's own
cases bring it closer to what that site sees (local fine-tuning, Wang et al., arXiv 1910.10252),
and the mean of both networks' weights keeps what the others taught it (WiSE-FT, Wortsman et al.,
arXiv 2109.01903). The site serves it where it has the higher balanced accuracy on the site's
validation lesions. Its weights never leave the site. docs/benchmarks.md has what it gives.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from common.data.cases import Cases
from common.messages import TrainAsk
from common.qana.networks import network
from common.qana.weights import NamedWeights
from common.test_time_views import over_symmetries
from edge_client.acceptance import balanced_accuracy
from edge_client.training import train_as_asked

OWN_SHARE = 0.5
"""Of the fine-tuned weights in the own network's; chosen on validation lesions, docs/trials.md."""


@dataclass(frozen=True)
class FineTuned:
    """A site's own network and how it compares.

    Parameters
    ----------
    weights : named arrays
        Of the quantized network.
    before, after : float
        Balanced accuracy, 0 to 1, of the coordinator's network and of the own one on the site's
        validation lesions, by their own heads and as many views as the site answers by.
    """

    weights: NamedWeights
    before: float
    after: float

    @property
    def is_better(self) -> bool:
        """Whether the site gains by it; equal is not better."""
        return self.after > self.before


def fine_tune(
    ask: TrainAsk,
    weights: NamedWeights,
    cases: Cases,
    validation: Cases,
    all_symmetries: bool,
    told: Callable[[int, float], None] = lambda epoch, loss: None,
) -> FineTuned:
    """Train the quantized network on for the site and judge the mean of both.

    Parameters
    ----------
    ask : TrainAsk
        How; of the phase "qat".
    weights : named arrays
        The quantized network of the version that arrived.
    cases, validation : Cases
        The site's training cases and its validation lesions, at least one of each, labelled by
        ``ask.classes``.
    all_symmetries : bool
        Whether both are judged by the mean over an image's eight symmetries.
    told : function
        Hears of every epoch, counted from 1, and its mean loss.
    """
    trained = train_as_asked(ask, weights, cases, None, told).weights
    own = {
        name: np.asarray((1 - OWN_SHARE) * weights[name] + OWN_SHARE * trained[name], np.float32)
        for name in trained
    }
    net = network("qat", ask.config, len(ask.classes))

    def judged(of: NamedWeights) -> float:
        net.set_weights(of)
        scores = over_symmetries(net.logits) if all_symmetries else net.logits
        hits = scores(validation.images).argmax(axis=1) == validation.labels
        found = balanced_accuracy(hits, [ask.classes[label] for label in validation.labels])
        return 0.0 if found is None else found

    return FineTuned(own, judged(weights), judged(own))
