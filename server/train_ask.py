"""What a site is asked to train: in a round for all sites, at the end for itself."""

from common.messages import TrainAsk
from common.seeds import derive_seed
from server.checkpoint import RunState
from server.plan import RunPlan

FINE_TUNING_RATE = 1e-4
"""A third of the quantized rounds' first rate; what it gives is in docs/trials.md."""


def train_ask(plan: RunPlan, state: RunState, site: str) -> TrainAsk:
    """The plan's settings for a site in the state's round, without those that do not apply."""
    phase = plan.phase(state.round)
    corrected = plan.balance == "prior"
    shares = state.class_prior if corrected and plan.class_prior == "pooled" else ()
    return TrainAsk(
        run=plan.run,
        round=state.round,
        phase=phase,
        classes=state.classes,
        config=plan.config,
        epochs=plan.local_epochs,
        batch=plan.batch,
        learning_rate=plan.learning_rate_in(state.round),
        prior_strength=plan.prior_strength if corrected else 0.0,
        proximal=plan.proximal if plan.strategy == "fedprox" else 0.0,
        balance=plan.balance,
        smote_share=plan.smote_share,
        seed=derive_seed(plan.seed, "train", state.round, site),
        # Counted before a class was met, they say nothing of it: then each site's own.
        class_prior=shares if len(shares) == len(state.classes) else (),
        fixed_batch_norm=plan.fixes_batch_norm(state.round),
        event_penalty=plan.event_penalty,
        distillation=plan.distillation if phase == "qat" else 0.0,
        compression=plan.compression,
        counted=state.counted.get(site, 0),
    )


def fine_tuning_ask(
    plan: RunPlan, round_number: int, classes: tuple[str, ...], site: str
) -> TrainAsk | None:
    """How a site trains the run's last version, of ``classes``, on for itself; None for not.

    By the labels and the shares of its own cases: it is its own cases that it will answer.
    """
    if not plan.fine_tuning_epochs or len(classes) > len(plan.classes):
        return None
    return TrainAsk(
        run=plan.run,
        round=round_number,
        phase="qat",
        classes=classes,
        config=plan.config,
        epochs=plan.fine_tuning_epochs,
        batch=plan.batch,
        learning_rate=FINE_TUNING_RATE,
        prior_strength=plan.prior_strength if plan.balance == "prior" else 0.0,
        proximal=0.0,
        balance=plan.balance,
        smote_share=plan.smote_share,
        seed=derive_seed(plan.seed, "fine-tuning", site),
        event_penalty=plan.event_penalty,
    )
