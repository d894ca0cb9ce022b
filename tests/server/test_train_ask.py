"""What sites are asked in training: the plan's settings, without those that do not apply."""

from typing import Any

import pytest

from common.messages import TrainAsk
from server.checkpoint import RunState
from server.train_ask import train_ask
from tests.support.tiny_run import tiny_plan

SHARES = (0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1)


def asked(
    site: str = "site-1",
    round_number: int = 1,
    class_prior: tuple[float, ...] = SHARES,
    **settings: Any,
) -> TrainAsk:
    plan = tiny_plan(**settings)
    state = RunState(round_number, "train", plan.classes, {}, class_prior=class_prior)
    return train_ask(plan, state, site)


def test_pooled_shares_of_the_classes_go_with_the_prior_only() -> None:
    found = asked(balance="prior", class_prior=SHARES, prior_strength=0.5)
    assert (found.class_prior, found.prior_strength) == (SHARES, 0.5)
    for balance in ("smote", "none"):
        found = asked(balance=balance, prior_strength=0.5)
        assert (found.class_prior, found.prior_strength) == ((), 0.0)


@pytest.mark.parametrize("known", [(), SHARES[:-1]])
def test_shares_that_are_not_of_all_classes_are_left_out(known: tuple[float, ...]) -> None:
    assert asked(class_prior=known).class_prior == ()


def test_distillation_is_for_quantized_rounds() -> None:
    found = {n: asked(round_number=n, distillation=0.3) for n in (1, 2)}
    assert (found[1].phase, found[1].distillation) == ("float", 0.0)
    assert (found[2].phase, found[2].distillation) == ("qat", 0.3)


@pytest.mark.parametrize(("strategy", "expected"), [("fedprox", 0.2), ("fedavg", 0.0)])
def test_the_proximal_term_is_fedproxs(strategy: str, expected: float) -> None:
    assert asked(strategy=strategy, proximal=0.2).proximal == expected


def test_every_site_and_round_has_a_seed_of_its_own() -> None:
    asks = [asked(site, n) for site in ("site-1", "site-2") for n in (1, 2)]
    assert len({ask.seed for ask in asks}) == len(asks)
    assert asked("site-1", 1).seed == asks[0].seed
    assert asked("site-1", 1, seed=1).seed != asks[0].seed


def test_a_site_is_told_which_of_its_rounds_was_counted() -> None:
    plan = tiny_plan()
    state = RunState(2, "train", plan.classes, {}, counted={"site-1": 1})
    assert [train_ask(plan, state, site).counted for site in ("site-1", "site-2")] == [1, 0]
