"""What may leave a site: every answer goes through `allowed` before it is sent.

The tasks keep to the policy themselves (`edge_client.reporting`, `edge_client.training_time`);
what they answer is looked at again here, so that a mistake there lets nothing out. Clipping, noise
and then compression are done here and nowhere else.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from common.compression import compress
from common.errors import FedqanaError, SiteRefused, StateInUse, StorageFull
from common.messages import (
    Answer,
    BalanceReply,
    DeployReply,
    EvaluateReply,
    FinalReply,
    HandshakeReply,
    Instruction,
    Kind,
    ShareReply,
    SiteCode,
    TrainAsk,
    TrainReply,
)
from edge_client.policy import Policy
from edge_client.reporting import objection_to_balancing
from edge_client.unsent_change import UnsentChange

log = logging.getLogger("fedqana.site")

_REPLIES: dict[Kind, type[BaseModel]] = {
    "handshake": HandshakeReply,
    "train": TrainReply,
    "balance": BalanceReply,
    "evaluate": EvaluateReply,
    "deploy": DeployReply,
    "share": ShareReply,
    "final": FinalReply,
}

_CATEGORIES = {
    "protocol": "software",
    "model_hash": "software",
    "fedqana": "software",
    "backend": "software",
    "site": "site name",
    "classes": "class codes",
    "new_classes": "class codes",
    "n_train": "case numbers",
    "n_validation": "case numbers",
    "n_test": "case numbers",
    "examples": "case numbers",
    "calibration_images": "case numbers",
    "cases_learned": "case numbers",
    "loss": "loss",
    "counts": "counts",
    "shares": "answers by class",
    "heads": "counts",
    "old_before": "hits",
    "old_after": "hits",
    "new_before": "hits",
    "new_after": "hits",
    "agreement": "agreement",
    "ranges": "activation ranges",
    "mean_spikes": "spikes",
    "neurons": "neurons",
    "adopted": "neurons taken over",
    "switched": "version",
    "reason": "version",
    "in_service": "version",
    "fine_tuned": "version",
    "seconds": "times",
    "latency_ms": "times",
    "power_mw": "power",
}
"""What the audit log calls a field; one that is not here goes by its own name."""


def allowed(instruction: Instruction | None, answer: Answer, policy: Policy, home: Path) -> Answer:
    """The answer as the policy lets it leave; the same object where that changes nothing.

    Raises SiteRefused where nothing of it may leave, ValueError where it is no answer to the
    instruction.
    """
    if answer.error or instruction is None:
        if answer.error not in get_args(SiteCode) or answer.reply or answer.arrays:
            raise ValueError("an answer that is neither a reply nor one of the codes")
        return answer
    form = _REPLIES[instruction.kind]
    reply = form.model_validate_json(answer.reply)
    if answer.arrays and not isinstance(reply, TrainReply):
        raise ValueError(f"arrays in the answer to {instruction.kind}")
    fewest = policy.reporting.min_cases_per_class
    if fewest and any(0 < n < fewest for n in _numbers_of_cases(reply)):
        raise SiteRefused("declined", f"it tells of fewer than {fewest} cases of a class")
    if isinstance(reply, BalanceReply) and (why := objection_to_balancing(policy)):
        raise SiteRefused("declined", why)
    if isinstance(reply, TrainReply):
        return _allowed_update(instruction, answer, reply, policy, home)
    if isinstance(reply, DeployReply) and reply.neurons is not None and not policy.sharing.neurons:
        log.error("neurons were in an answer though the policy does not share them; removed")
        return Answer(reply.model_copy(update={"neurons": None}).model_dump_json())
    return answer


def _allowed_update(
    instruction: Instruction, answer: Answer, reply: TrainReply, policy: Policy, home: Path
) -> Answer:
    if not policy.training.take_part:
        raise SiteRefused("declined", "the policy says take_part = false")
    ask, received, weights = instruction.ask, instruction.arrays, answer.arrays
    assert isinstance(ask, TrainAsk)
    compressed, noised = ask.compression != "none", policy.privacy.epsilon > 0
    if compressed and noised:
        UnsentChange(home, ask).forget()
    elif compressed:
        weights = UnsentChange(home, ask).add_to(weights, received, reply.examples)
    if policy.privacy.clip_norm:
        from edge_client.privacy import protected

        weights = protected(weights, received, policy.privacy, ask, reply.examples, home)
    if not compressed:
        return answer if weights is answer.arrays else Answer(answer.reply, arrays=weights)
    sent = compress(weights, received, ask.compression)
    if not noised:
        UnsentChange(home, ask).keep(weights, sent, received)
    return Answer(answer.reply, arrays=sent)


def _numbers_of_cases(reply: BaseModel) -> Iterator[int]:
    """Every number of cases that a reply tells of by class, and of held-back ones altogether."""
    if isinstance(reply, HandshakeReply):
        yield from (reply.n_validation, reply.n_test)
    if isinstance(reply, BalanceReply):
        yield from reply.counts
    if isinstance(reply, EvaluateReply):
        yield from _per_class(reply.counts)
    if isinstance(reply, DeployReply | FinalReply):
        for counts in reply.heads.values():
            yield from _per_class(counts)
        yield int(reply.agreement.get("images", 0))
    if isinstance(reply, DeployReply | ShareReply):
        for _, n in (reply.old_before, reply.old_after, reply.new_before, reply.new_after):
            yield n


def _per_class(counts: dict[str, Any]) -> Iterator[int]:
    yield from (sum(row) for row in counts["confusion"])


def contents(instruction: Instruction | None, answer: Answer) -> set[str]:
    """Categories of what an answer holds."""
    if answer.error or instruction is None:
        return {"error code"}
    reply = _REPLIES[instruction.kind].model_validate_json(answer.reply)
    found = {
        _CATEGORIES.get(name, name)
        for name in type(reply).model_fields
        if getattr(reply, name) not in (None, (), {})
    }
    if answer.arrays:
        plain = isinstance(instruction.ask, TrainAsk) and instruction.ask.compression == "none"
        found.add("weights" if plain else "compressed change")
    return found


def storage_code(error: Exception) -> SiteCode:
    """What is sent in place of an answer that could not be written into the audit log."""
    if isinstance(error, StorageFull):
        return "storage-full"
    if isinstance(error, StateInUse):
        return "state-in-use"
    return "state-damaged" if isinstance(error, FedqanaError) else "internal-error"
