"""What the privacy of a collection rests on, worked out from who signs: who would have to collude to break it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from palate.privacy.aggregators.admission import Parties

ASSUMPTION: Final = "That is so if different people hold these keys and keep apart, which no program can check."


@dataclass(frozen=True)
class Trust:
    """What may be claimed.

    Attributes
    ----------
    parties
        How many parties would have to work together, at least, to read one person's vector: 1 or 2.
    sentence
        Who would have to work together to read one person's vector, for pages and reports.
    """

    parties: int
    sentence: str

    @property
    def assumption(self) -> str:
        """What the sentence rests on and no program can check; empty where one party can read everything anyway."""
        return ASSUMPTION if self.against_lies else ""

    @property
    def against_lies(self) -> bool:
        """Whether the guarantee also holds against an aggregator that breaks the protocol."""
        return self.parties > 1


def trust_of(parties: Parties) -> Trust:
    """Work out what a fleet's keys allow to claim.

    Parameters
    ----------
    parties
        As the invitation gave them, not as the leader says.
    """
    if parties.leader == parties.helper:
        return Trust(
            parties=1,
            sentence="One party is both leader and helper, and can read what each device sends: nothing is protected.",
        )
    if parties.authority is None:
        return Trust(
            parties=2,
            sentence="To read what one device sends, the leader and the helper would have to work together.",
        )
    if parties.authority in (parties.leader, parties.helper):
        who = "leader" if parties.authority == parties.leader else "helper"
        return Trust(
            parties=1,
            sentence=f"The {who} admits devices alone: it can invent them and read what one device sends, unless it "
            "follows the protocol.",
        )
    return Trust(
        parties=2,
        sentence="To read what one device sends, two of the three would have to work together: the leader, the helper "
        "and the authority that admits devices.",
    )
