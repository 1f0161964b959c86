"""What an epsilon would be if more devices colluded than the noise was sized for: both protocols, one formula.

Of E enrolled devices a share g colludes: k = floor(g E). They know their own shares of noise, or leave them out, and a
server that breaks the protocol asks all of them. Of a sum of the fewest vectors that a round accepts, B, then
m = B - k hold honest noise, and the sum's noise has the variance m v, with v that of one share. One share is always
left: the person's own. A round so costs ceil(1e9 S^2 (2 m v + 5) / (2 (m v)^2)) (`charge_nano`), and a ledger's meter
says what all rounds prove together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from palate.privacy.accounting.dropout import share_of
from palate.privacy.accounting.filters import SkellamMeter
from palate.privacy.accounting.guarantee import round_up
from palate.privacy.ledger.body import charge_nano
from palate.privacy.ledger.errors import MalformedBody

SHARES: Final = (0.01, 0.05, 0.1)
"""Shares of colluding devices that are shown."""


@dataclass(frozen=True, kw_only=True)
class LeastSum:
    """A round at its worst: the fewest vectors that it may add up, of all devices that could be among them.

    Attributes
    ----------
    sensitivity
        S, bound on a vector's L2 norm, in integer steps.
    share_variance
        v, variance of one device's share of noise.
    least
        B, fewest vectors in the sum.
    enrolled
        E, devices that the server may choose from.
    """

    sensitivity: int
    share_variance: int
    least: int
    enrolled: int

    def honest(self, share: float) -> int:
        """m, shares of honest noise that are surely in the sum where a share of the enrolled colludes; at least 1."""
        return max(1, self.least - share_of(share, self.enrolled))


@dataclass(frozen=True)
class IfColluding:
    """What would be left.

    Attributes
    ----------
    share
        g, share of the enrolled devices that collude.
    epsilon
        Of all rounds together, rounded up; infinity where next to no noise is left.
    alone
        Whether a round has no other honest noise than the person's own.
    """

    share: float
    epsilon: float
    alone: bool

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; an epsilon that is not finite is null."""
        epsilon = self.epsilon if self.epsilon < float("inf") else None
        return {"share": self.share, "epsilon": epsilon, "only_own_noise": self.alone}


def if_colluding(rounds: Sequence[LeastSum], delta: float, shares: Iterable[float] = SHARES) -> list[IfColluding]:
    """Account for rounds in which a share of the enrolled devices collude; empty where there is no round."""
    if not rounds:
        return []
    meter = SkellamMeter(min(each.sensitivity for each in rounds))
    found = []
    for share in shares:
        honest = [each.honest(share) for each in rounds]
        try:
            nano = sum(charge_nano(r.sensitivity, m * r.share_variance) for r, m in zip(rounds, honest, strict=True))
            epsilon = meter.epsilon(nano, delta)
        except MalformedBody:  # the noise is negligible
            epsilon = float("inf")
        found.append(IfColluding(share, epsilon, 1 in honest))
    return found


def colluding_words(found: Sequence[IfColluding], delta: float, *, of: str) -> str:
    """Say it in a sentence, empty for nothing; `of` is of whom the shares are, such as "the enrolled devices"."""
    if not found:
        return ""
    left = {True: " (nobody else's noise is left)", False: ""}
    parts = [f"epsilon {round_up(each.epsilon)} with {each.share:.0%}{left[each.alone]}" for each in found]
    return f"if more of {of} colluded with whoever adds up: {', '.join(parts)}, at delta {delta:g} per user"
