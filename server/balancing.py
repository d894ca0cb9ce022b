"""The exchanges of a phase's end by which its network comes to answer all classes alike."""

import numpy as np

from common.answers_by_class import AnswersByClass
from common.messages import BalanceAsk, Instruction
from common.qana.weights import NamedWeights
from server.accepted_sites import AcceptedSites
from server.checkpoint import RunState
from server.class_offsets import STEPS, next_offsets
from server.plan import RunPlan
from server.run_log import RunLog
from server.validation import check_balance

_HEAD_BIAS = "head/bias"


def balanced(
    weights: NamedWeights, plan: RunPlan, state: RunState, sites: AcceptedSites, log: RunLog
) -> NamedWeights:
    """The round's network with offsets of its classes added to its head's bias.

    The offsets come of what it answers the sites' training cases (`server.class_offsets`). Below
    the quorum the weights stay as they are: the network is usable without.
    """
    n_classes = len(state.classes)
    ask = BalanceAsk(
        run=plan.run,
        round=state.round,
        phase=plan.phase(state.round),
        classes=state.classes,
        config=plan.config,
    )
    offsets, found, asked = np.zeros(n_classes), weights, state.sites
    for _ in range(STEPS):
        replies = sites.ask(
            "balance",
            state.round,
            {site: Instruction("balance", ask, arrays=found) for site in asked},
            lambda site, answer: check_balance(
                answer,
                n_classes,
                sites.reported_by(site).n_train + state.learned.get(site, 0),
            ),
        )
        if len(replies) < (needed := sites.quorum(state.sites)):
            told = f"{len(replies)} of {needed} needed answers by class"
            log.event("not-balanced", f"{told}; the head stays as it is", state.round)
            return weights
        pooled = AnswersByClass(np.zeros(n_classes, np.int64), np.zeros((n_classes, n_classes)))
        for site in sorted(replies):
            pooled = pooled + replies[site][1]
        offsets = next_offsets(offsets, pooled)
        found = {**weights, _HEAD_BIAS: (weights[_HEAD_BIAS] + offsets).astype(np.float32)}
        asked = tuple(sorted(replies))  # one that declined is not asked again
    shown = ", ".join(f"{c} {o:+.2f}" for c, o in zip(state.classes, offsets, strict=True))
    log.event("balanced", f"class offsets: {shown}", state.round)
    return found
