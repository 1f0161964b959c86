"""Rounds as entries of a ledger: the entry that charges a plan, and the event that an entry records.

Devices and the server write the same entry about the same plan, so an auditor can compare their ledgers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from palate.privacy.accounting.events import Adjacency, SkellamEvent, Unit
from palate.privacy.accounting.guarantee import account_for
from palate.privacy.budget import ADJACENCY, events_of
from palate.privacy.errors import PrivacyError
from palate.privacy.ledger.body import Intent
from palate.privacy.wire import RoundPlan

MECHANISM = "skellam"
NO_SAMPLING = "none-claimed"
ADJACENCIES = {str(kind).partition(":")[0]: kind for kind in Adjacency}
"""Adjacencies by their name in ledgers."""


def intents(plan: RoundPlan) -> dict[Unit, Intent]:
    """Return the entries that charge a round, one for each unit that it protects; raises as `events_of`."""
    events, terms = events_of(plan), plan.terms
    if terms is None:
        return {}
    return {
        unit: Intent(
            run=plan.run,
            round=plan.server_round,
            mechanism=MECHANISM,
            unit=str(unit),
            adjacency=ADJACENCY,
            clip_int=event.sensitivity,
            sum_var_int=int(event.variance),
            m_honest=terms.honest_shares if unit is Unit.USER else 1,
            n1=terms.roster_size,
            sampling=NO_SAMPLING,
            model=f"sha256:{plan.table_hash}",
            transcript=f"sha256:{plan.content_hash}",
        )
        for unit, event in events.items()
    }


def ledger_name(owner: str, unit: Unit) -> str:
    """Name the ledger of an owner for a unit: its own name, and for interactions a second one."""
    return owner if unit is Unit.USER else f"{owner}.{unit}"


def event_of(intent: Intent) -> SkellamEvent:
    """Read an entry of a ledger as a release.

    Raises
    ------
    PrivacyError
        If the unit, the adjacency, the mechanism or the sampling is not one that is accounted for here.
    """
    known = {
        "unit": (intent.unit, tuple(map(str, Unit))),
        "adjacency": (intent.adjacency, tuple(ADJACENCIES)),
        "mechanism": (intent.mechanism, (MECHANISM,)),
        "sampling": (intent.sampling, (NO_SAMPLING,)),
    }
    for name, (value, accepted) in known.items():
        if value not in accepted:
            raise PrivacyError(
                f"round {intent.round} of {intent.run}: {name} {value!r} is not {' or '.join(accepted)}",
                hint="audit the ledger with the palate that wrote it",
            )
    event = SkellamEvent(
        sensitivity=intent.clip_int,
        variance=intent.sum_var_int,
        unit=Unit(intent.unit),
        adjacency=ADJACENCIES[intent.adjacency],
    )
    # One share is the device's own noise: the figure then depends on nobody else.
    return event if intent.m_honest > 1 else replace(event, assumptions=())


def epsilon_of(intents: Sequence[Intent], delta: float) -> float:
    """Proven epsilon of some rounds together, 0 for none."""
    return account_for([event_of(intent) for intent in intents], delta).epsilon if intents else 0.0
