"""Who shares masks and shares with whom: everybody (Bonawitz et al. 2017), or k neighbours (Bell et al. 2020).

Secrets are split so that floor(k/2) + 1 shares give them back, over k + 1 holders: the k neighbours and the device
itself. On the complete graph k = n1 - 1, and floor((n1 - 1) / 2) + 1 > floor(gamma n1) for every gamma below one half,
so that colluders alone reconstruct nothing.

The k-regular graph costs a device O(k) in place of O(n1) but holds against a server that follows the protocol only: a
lying one declares the neighbours of a few devices dropped, learns their keys by the rules, and with them the sum of
those few, while every survivor has signed the same large set.
"""

from __future__ import annotations

from collections.abc import Sequence

from palate.privacy.ledger.framing import digest, number
from palate.privacy.secagg.offer import Offer

_GRAPH = b"palate secagg graph v1"


class ShareGraph:
    """The graph of one round, over ranks on the roster.

    Parameters
    ----------
    offer
        Says which graph.
    root
        Root of the roster; decides who neighbours whom on a k-regular graph.
    roster_size
        n1, devices on the roster.
    """

    def __init__(self, offer: Offer, root: bytes, roster_size: int) -> None:
        self.complete = offer.graph == "complete" or offer.degree >= roster_size - 1
        self._size = roster_size
        self._half = offer.degree // 2
        self._order: Sequence[int] = range(roster_size)
        if not self.complete:
            seed = offer.context, root
            self._order = sorted(range(roster_size), key=lambda rank: digest(_GRAPH, *seed, number(rank)))
        self._place = {rank: place for place, rank in enumerate(self._order)}

    @property
    def degree(self) -> int:
        """k, neighbours of every device."""
        return self._size - 1 if self.complete else 2 * self._half

    @property
    def threshold(self) -> int:
        """t, shares that give a secret back: floor(k/2) + 1."""
        return self.degree // 2 + 1

    def neighbours(self, rank: int) -> tuple[int, ...]:
        """Ranks that share masks with `rank`, ascending."""
        if self.complete:
            return tuple(other for other in range(self._size) if other != rank)
        place = self._place[rank]
        steps = [*range(1, self._half + 1), *range(-self._half, 0)]
        return tuple(sorted(self._order[(place + step) % self._size] for step in steps))

    def holders(self, rank: int) -> tuple[int, ...]:
        """Ranks that hold shares of the secrets of `rank`, itself among them, ascending."""
        return tuple(sorted((rank, *self.neighbours(rank))))
