"""What a site trains on: its training cases and those that its chip has learned."""

import numpy as np

from common.data.cases import Cases
from common.messages import BalanceAsk, TrainAsk
from edge_client.case_journal import CaseJournal, LabelledCase
from edge_client.oversampling import oversampled
from edge_client.run_rounds import rounds_of
from edge_client.site import SiteData, SiteFolder, relabelled


def training_cases(ask: TrainAsk | BalanceAsk, folder: SiteFolder, data: SiteData) -> Cases:
    """The site's training cases, with SMOTE's if asked, and the journal's up to the round before.

    Of the journal's nothing is made: they are others in every round, and making takes minutes.
    """
    rounds = rounds_of(folder, ask.run)
    journal = CaseJournal(folder.state / "cases.journal", read_only=True)
    held_back = data.held_back
    learned = [
        case
        for case in journal.cases(rounds.number(ask.round) - 1)
        if case.code in ask.classes and case.lesion_id not in held_back
    ]
    cases = relabelled(data.train, data.classes, ask.classes)
    if isinstance(ask, TrainAsk) and ask.balance == "smote":
        cases = oversampled(cases, ask.classes, data.name, ask.smote_share, folder.path)
    parts = [cases]
    if learned:
        parts.append(_as_cases(learned, ask.classes))
    return Cases.concatenate(parts)


def _as_cases(learned: list[LabelledCase], classes: tuple[str, ...]) -> Cases:
    return Cases(
        np.stack([c.image for c in learned]),
        np.array([classes.index(c.code) for c in learned], np.int64),
        tuple(c.case_id for c in learned),
        tuple(c.lesion_id for c in learned),
    )
