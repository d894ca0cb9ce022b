"""How far a site's optimizer can carry a weight in a round, as coordinator and site both tell."""

import math

from common.messages import TrainAsk

ADAM_REACH = 7.3
"""Learning rates that one step can move a weight by, see `farthest`."""

ROUNDING = 1e-4
"""Of float32 weights up to a thousand."""


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
