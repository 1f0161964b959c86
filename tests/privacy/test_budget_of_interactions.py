"""Units "interaction" and "both": one device's noise hides an interaction, the sum hides a person."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import pytest

from palate.privacy.accounting.events import Composed, SkellamEvent, Unit
from palate.privacy.accounting.gaussian import epsilon_at
from palate.privacy.accounting.guarantee import account_for
from palate.privacy.budget import RunBudget, run_terms
from palate.privacy.errors import PrivacyError
from palate.privacy.mechanisms.terms import ReleaseTerms, RunTerms


class Bounds(NamedTuple):
    """B of a popularity and of a training round."""

    popularity: int
    train: int


BUDGET = RunBudget(
    unit="interaction",
    epsilon=4.0,
    delta=1e-5,
    rounds=6,
    popularity_share=0.25,
    clip_norm=0.3,
    sensitivity=256,
    honest_shares=700,
    roster_size=1000,
)


def interaction_terms(budget: RunBudget, bounds: Bounds) -> RunTerms:
    return run_terms(replace(budget, popularity_interactions=bounds.popularity, interactions_per_round=bounds.train))


def both_terms(budget: RunBudget, bounds: Bounds, *, interaction_epsilon: float) -> RunTerms:
    return interaction_terms(replace(budget, unit="both", interaction_epsilon=interaction_epsilon), bounds)


def interaction_event(terms: ReleaseTerms) -> SkellamEvent:
    return SkellamEvent(sensitivity=terms.sensitivity, variance=terms.share_variance, unit=Unit.INTERACTION)


def user_event(terms: ReleaseTerms, times: float) -> SkellamEvent:
    return SkellamEvent(sensitivity=math.ceil(times * terms.sensitivity), variance=terms.sum_variance)


def claim(terms: RunTerms, bounds: Bounds | None = None) -> float:
    """What the whole run costs an interaction, or with bounds, a person."""
    if bounds is None:
        popularity, train = interaction_event(terms.popularity), interaction_event(terms.train)
    else:
        popularity = user_event(terms.popularity, math.sqrt(bounds.popularity))
        train = user_event(terms.train, bounds.train)
    return account_for([popularity, Composed(train, BUDGET.rounds)], BUDGET.delta).epsilon


def gaussian(terms: RunTerms, bounds: Bounds | None = None) -> float:
    """The same for Gaussian noise of the same size, in closed form."""
    honest = 1 if bounds is None else BUDGET.honest_shares
    popularity, train = (1.0, 1.0) if bounds is None else (math.sqrt(bounds.popularity), float(bounds.train))
    mu_squared = (256 * popularity) ** 2 / (honest * terms.popularity.share_variance)
    mu_squared += BUDGET.rounds * (256 * train) ** 2 / (honest * terms.train.share_variance)
    return epsilon_at(math.sqrt(mu_squared), BUDGET.delta)


def less_noise(terms: RunTerms) -> RunTerms:
    popularity, train = (
        replace(each, share_variance=int(0.9999 * each.share_variance)) for each in (terms.popularity, terms.train)
    )
    return RunTerms(popularity=popularity, train=train)


def test_one_devices_noise_meets_the_budget_of_an_interaction_and_not_by_much():
    terms = interaction_terms(BUDGET, Bounds(popularity=300, train=64))
    # 256 steps are coarse: what a ledger can count on is some percent less than the rounds are worth
    assert 0.98 * BUDGET.epsilon < claim(terms) <= BUDGET.epsilon
    assert claim(terms) < claim(less_noise(terms))
    assert 0.96 * BUDGET.epsilon < gaussian(terms) <= BUDGET.epsilon
    assert terms.train.honest_shares == terms.popularity.honest_shares == 1


def test_the_popularity_round_gets_its_share_of_the_budget():
    terms = interaction_terms(BUDGET, Bounds(popularity=300, train=64))
    popularity = 1.0 / terms.popularity.share_variance
    train = BUDGET.rounds / terms.train.share_variance
    assert popularity / (popularity + train) == pytest.approx(BUDGET.popularity_share, rel=1e-4)


@pytest.mark.parametrize(
    ("bounds", "decides"),
    [(Bounds(popularity=9, train=2), "interaction"), (Bounds(popularity=400_000, train=600), "person")],
)
def test_both_promises_hold_and_the_harder_one_decides(bounds: Bounds, decides: str):
    terms = both_terms(BUDGET, bounds, interaction_epsilon=2.0)
    spent = {"interaction": claim(terms) / 2.0, "person": claim(terms, bounds) / BUDGET.epsilon}
    assert max(spent.values()) <= 1.0
    assert spent[decides] > 0.97
    assert spent[decides] == max(spent.values())
    assert gaussian(terms) <= 2.0
    assert gaussian(terms, bounds) <= BUDGET.epsilon


def test_a_person_is_free_while_the_bound_is_below_the_root_of_the_honest_shares():
    alone = interaction_terms(BUDGET, Bounds(popularity=700, train=26))
    for bounds in (Bounds(popularity=690, train=26), Bounds(popularity=1, train=1)):  # sqrt(700) is 26.5
        both = both_terms(BUDGET, bounds, interaction_epsilon=BUDGET.epsilon)
        assert both.train.share_variance == alone.train.share_variance
        assert both.popularity.share_variance == alone.popularity.share_variance
    more = both_terms(BUDGET, Bounds(popularity=720, train=27), interaction_epsilon=BUDGET.epsilon)
    assert more.train.share_variance > alone.train.share_variance
    assert more.popularity.share_variance > alone.popularity.share_variance


def test_noise_for_a_person_grows_with_the_bound_on_interactions():
    few, many = (
        both_terms(BUDGET, Bounds(popularity=bound * bound, train=bound), interaction_epsilon=50.0)
        for bound in (100, 200)
    )
    assert many.train.share_variance == pytest.approx(4 * few.train.share_variance, rel=1e-3)
    assert many.popularity.share_variance == pytest.approx(4 * few.popularity.share_variance, rel=1e-3)


def test_the_modulus_holds_a_sum_of_all_interactions():
    assert interaction_terms(BUDGET, Bounds(popularity=64, train=64)).train.ring_bits == 32
    many = interaction_terms(replace(BUDGET, sensitivity=1 << 14), Bounds(popularity=1, train=200))
    largest = 1000 * 200 * (1 << 14) + 12 * math.isqrt(1000 * many.train.share_variance)
    assert 2 ** (many.train.ring_bits - 2) <= largest < 2 ** (many.train.ring_bits - 1)
    assert many.popularity.ring_bits == 32


@pytest.mark.parametrize("bounds", [(0, 5), (5, 0), (-3, 5)])
def test_an_unbounded_person_is_refused(bounds: tuple[int, int]):
    with pytest.raises(PrivacyError, match="at least 1"):
        interaction_terms(BUDGET, Bounds(popularity=bounds[0], train=bounds[1]))
