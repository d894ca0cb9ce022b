"""How far a site's optimizer can carry a weight in a round, as coordinator and site both tell."""

import math

from common.messages import TrainAsk

ADAM_REACH = 7.3
"""Learning rates that one step can move a weight by, see `farthest`."""

ROUNDING = 1e-4
"""Of float32 weights up to a thousand."""

UNSENT_REACH = 0.5
"""Of a round's reach: what earlier rounds did not send adds no more to any weight's change.

Honest sites come nowhere near: they move a weight by about a seventh of the reach, and
quantization leaves out less than that."""


def optimizer_steps(ask: TrainAsk, examples: int) -> int:
    """Optimizer steps that a site needs to train on ``examples`` cases as asked.

    A site whose policy allows fewer epochs makes fewer.
    """
    return ask.epochs * math.ceil(examples / ask.batch)


def farthest(ask: TrainAsk, examples: int) -> float:
    """How far a weight can move in a round.

    One step of Adam with beta1 = 0.9 and beta2 = 0.999 moves a weight by less than 7.3 learning
    rates, whatever the gradients: |m| / sqrt(v) is largest where g falls as (beta1 / beta2)^k
    (Cauchy-Schwarz), 0.1 / sqrt(0.001 (1 - 0.81 / 0.999)) = 7.27. FedProx's pull is part of the
    gradient.
    """
    return ADAM_REACH * ask.learning_rate * optimizer_steps(ask, examples) + ROUNDING


def farthest_sent(ask: TrainAsk, examples: int) -> float:
    """How far a weight can move by a site's update, with what compression left out of earlier ones.

    The site limits what it adds to `UNSENT_REACH` (`edge_client.unsent_change`), and a compressed
    change exceeds the largest of its array nowhere (`common.compression`).
    """
    if ask.compression == "none":
        return farthest(ask, examples)
    return (1 + UNSENT_REACH) * farthest(ask, examples)
