"""The guarantee that a finished run may claim: the proven figure, its assumptions, and independent accountants."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from palate.privacy.accounting.crosscheck import checked_epsilon
from palate.privacy.accounting.dropout import local_event
from palate.privacy.accounting.events import Composed, SkellamEvent, Unit
from palate.privacy.accounting.guarantee import LOCAL_WARNING, Guarantee, account_for, as_dict
from palate.privacy.budget import events_of
from palate.privacy.mechanisms.registry import MECHANISMS
from palate.privacy.mechanisms.terms import RunTerms
from palate.server.coordinator import Coordinator
from palate.simulation.config import SimulationConfig
from palate.simulation.protection import device_rounds

SEEDED = "no privacy: the noise was made from the seed, and whoever knows the seed can subtract it"
PUBLIC_CATALOGUE = (
    "the list of items is public, here those that the data names and cleaning leaves; so is who takes part"
)


def label_of(config: SimulationConfig) -> str:
    """Say in a few words what protects the people of a run."""
    return SEEDED if config.promises and config.privacy.noise == "seeded" else MECHANISMS[config.unit].label


def guarantee_of(
    config: SimulationConfig, coordinator: Coordinator, phase: Callable[[str], None]
) -> dict[str, Any] | None:
    """Account for a run as planned, and have the figure checked; None for a run that promises nothing.

    Raises
    ------
    AccountantsDisagree
        If independent accountants do not confirm the figure.
    AccountantUnavailable
        If a library is missing or fails.
    """
    terms = coordinator.settings.terms
    if terms is None or config.delta is None or config.privacy.noise == "seeded":
        return None
    phase("checking the guarantee with independent accountants")
    plans, schedule = coordinator.example_plans(), config.schedule
    rounds = device_rounds(config.privacy, schedule.rounds, coordinator.settings.population, schedule.participation)
    claims = [
        _claim(popularity, train, rounds, terms, config.delta)
        for popularity, train in zip(*(events_of(plan).values() for plan in plans), strict=True)
    ]
    targets = {str(unit): promise.epsilon for unit, promise in config.promises.items()}
    for claim in claims:
        claim["target_epsilon"] = targets[claim["unit"]]
    notes, population = [], coordinator.settings.population
    if config.delta * population >= 1:
        notes.append(
            f"delta {config.delta:g} is not below one over {population:,} people: it would allow a release that gives "
            "one of them away; choose a smaller --delta"
        )
    return {
        **claims[0],
        "mechanism": f"Skellam noise on clipped, quantised updates ({MECHANISMS[config.unit].source})",
        "device_rounds": rounds,
        "clip_norm": terms.train.clip_norm,
        "sensitivity": terms.train.sensitivity,
        "honest_shares": terms.train.honest_shares,
        "roster_size": terms.train.roster_size,
        "further": claims[1:],
        "notes": notes,
    }


@lru_cache(maxsize=64)
def _checked(popularity: SkellamEvent, train: SkellamEvent, rounds: int, delta: float) -> Guarantee:
    """Ask the accountants once for a plan: the seeds of a sweep share it."""
    return checked_epsilon([popularity, Composed(train, rounds)], delta)


def _claim(popularity: SkellamEvent, train: SkellamEvent, rounds: int, terms: RunTerms, delta: float) -> dict[str, Any]:
    """Account for one unit; if the sum protects it, also for a device's own message by itself."""
    claim = _checked(popularity, train, rounds, delta)
    values: dict[str, Any] = {
        **as_dict(claim),
        "assumptions": [*map(str, claim.assumptions), PUBLIC_CATALOGUE],
        "noise_multipliers": {"popularity": popularity.noise_multiplier, "train": train.noise_multiplier},
        "local": None,
    }
    if popularity.unit is Unit.USER:
        alone = account_for(
            [
                local_event(popularity, terms.popularity.honest_shares),
                Composed(local_event(train, terms.train.honest_shares), rounds),
            ],
            delta,
        )
        values["local"] = {"warning": LOCAL_WARNING, "epsilon": alone.epsilon, "delta": alone.delta}
    return values
