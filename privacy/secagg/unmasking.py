"""Unmask a sum (Bonawitz et al. 2017, section 4), never a single vector.

A survivor's own mask comes off with its reconstructed seed b, a dropped device's pairwise masks with its reconstructed
mask key, each checked against what the device committed to. Wrong shares are found by decoding (`shamir.decode`) and
further shares of their sender are not used.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from palate.privacy.integer.ring import RingArray
from palate.privacy.secagg.errors import ReconstructionFailed
from palate.privacy.secagg.masks import PairKeys, add_mask, commitment, reduced
from palate.privacy.secagg.messages import RosterEntry
from palate.privacy.secagg.offer import Offer, share_threshold
from palate.privacy.secagg.shamir import combine, decode, parse_share


class Unmasking:
    """Collects revealed shares and unmasks one sum.

    Parameters
    ----------
    offer, root, entries
        The round's offer, roster root and roster.
    """

    def __init__(self, offer: Offer, root: bytes, entries: Sequence[RosterEntry]) -> None:
        self._offer = offer
        self._threshold = share_threshold(len(entries))
        self._entries = entries
        self._keys = PairKeys(offer.context, root)
        self._context = offer.context
        self._shares: dict[int, dict[int, bytes]] = {}  # rank of the owner -> rank of the holder -> share
        self.liars: set[int] = set()

    def add(self, holder: int, owners: Sequence[int], shares: Sequence[bytes]) -> None:
        """Add the shares that the device of rank `holder` has of those of ranks `owners`."""
        for owner, share in zip(owners, shares, strict=True):
            self._shares.setdefault(owner, {})[holder] = share

    def unmask(self, masked_sum: RingArray, shared: Sequence[int], survivors: Sequence[int]) -> RingArray:
        """Return the sum of the survivors' vectors, [vector_length]; `masked_sum` stays as it is.

        Raises
        ------
        ReconstructionFailed
            If a secret cannot be had from the shares, or is not what its owner committed to.
        """
        total, alive = masked_sum.copy(), set(survivors)
        for rank in shared:
            if rank in alive:
                seed = self._reconstruct(rank, dropped=False)
                add_mask(total, self._keys.self_mask(seed), subtract=True)
            else:
                self._remove_pairs(total, rank, alive)
        return reduced(total, self._offer.ring_bits)

    def _remove_pairs(self, total: RingArray, rank: int, alive: set[int]) -> None:
        key = X25519PrivateKey.from_private_bytes(self._reconstruct(rank, dropped=True))
        device = self._entries[rank].device
        for other in sorted(alive):
            peer = self._entries[other]
            pair = self._keys.pair_mask(key, peer.mask_key, (device, peer.device))
            # The survivor has added it if its number is the lower one.
            add_mask(total, pair, subtract=peer.device < device)

    def _reconstruct(self, rank: int, *, dropped: bool) -> bytes:
        shares = self._shares.get(rank, {})
        holders = sorted(set(shares) - self.liars)[: self._threshold]
        if len(holders) == self._threshold:
            secret = combine(tuple(h + 1 for h in holders), [parse_share(shares[h]) for h in holders])
            if secret is not None and self._is_committed(rank, secret, dropped=dropped):
                return secret
        points = [holder + 1 for holder in sorted(shares)]
        found = decode(points, [parse_share(shares[point - 1]) for point in points], self._threshold)
        if found is None or not self._is_committed(rank, found[0], dropped=dropped):
            device = self._entries[rank].device
            raise ReconstructionFailed(
                f"{len(shares)} shares of device {device} do not give the secret that it committed to,"
                f" {self._threshold} true ones would",
                device=device,
                hint="wait for more shares; if enough came, the device itself shared falsely: do not invite it again",
            )
        self.liars |= {point - 1 for point in found[1]}
        return found[0]

    def _is_committed(self, rank: int, secret: bytes, *, dropped: bool) -> bool:
        entry = self._entries[rank]
        if dropped:
            public = X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()
            return hmac.compare_digest(public, entry.mask_key)
        return hmac.compare_digest(commitment(self._context, secret), entry.commitment)
