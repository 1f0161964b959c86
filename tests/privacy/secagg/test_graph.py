"""The graph of masks: complete unless weakened by name, and what a lying server does to the weaker one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from palate.privacy.secagg.errors import OfferRefused, SurvivorsRefused
from palate.privacy.secagg.graph import ShareGraph
from palate.privacy.secagg.masks import PairKeys, add_mask
from palate.privacy.secagg.messages import Reveal, Signatures, SurvivorSets
from palate.privacy.secagg.server import Stage
from palate.privacy.secagg.shamir import combine, parse_share

REGULAR = {"graph": "k-regular-semi-honest", "degree": 6}


def test_neighbours_are_mutual_and_as_many_as_the_degree(secagg):
    graph = ShareGraph(secagg.offer(**REGULAR), bytes(32), 20)
    for rank in range(20):
        assert len(graph.neighbours(rank)) == graph.degree == 6
        assert rank not in graph.neighbours(rank)
        assert all(rank in graph.neighbours(other) for other in graph.neighbours(rank))
        assert set(graph.holders(rank)) == {rank, *graph.neighbours(rank)}
    assert graph.threshold == 4


def test_the_roster_decides_who_neighbours_whom(secagg):
    offer = secagg.offer(**REGULAR)
    graphs = [ShareGraph(offer, bytes([seed]) * 32, 30) for seed in (1, 2)]
    assert any(graphs[0].neighbours(rank) != graphs[1].neighbours(rank) for rank in range(30))


@pytest.mark.parametrize("size", [2, 3, 7, 8, 100, 301])
@pytest.mark.parametrize("gamma", [0, 100, 499])
def test_colluders_alone_reconstruct_nothing_on_the_complete_graph(secagg, size, gamma):
    offer = secagg.offer(gamma_thousandths=gamma, tau_thousandths=800, honest_shares=1)
    assert ShareGraph(offer, bytes(32), size).threshold > offer.corrupt(size)


def test_a_regular_graph_sums_exactly_with_dropouts(secagg):
    fleet = secagg.fleet(20, strict=False, **REGULAR)
    gone = [fleet.ids[3], fleet.ids[11]]
    fleet.play(drops={Stage.MASK: gone, Stage.REVEAL: [*gone, fleet.ids[7]]})
    survivors = [device for device in fleet.ids if device not in gone]
    assert fleet.server.result().vector.tolist() == fleet.sum_of(survivors).tolist()


def test_devices_refuse_the_regular_graph_unless_told_otherwise(secagg):
    with pytest.raises(OfferRefused, match="graph is k-regular-semi-honest, this device's policy asks for complete"):
        secagg.fleet(8, **REGULAR)


@pytest.mark.parametrize(
    "changes", [{"degree": 6}, {"graph": "k-regular-semi-honest"}, {**REGULAR, "degree": 5}, {"graph": "ring"}]
)
def test_a_degree_and_the_weaker_name_go_together(secagg, changes):
    with pytest.raises(OfferRefused):
        secagg.offer(**changes)


def _split_attack(fleet) -> tuple[np.ndarray, list[int]]:
    """Say that both sides of a few consecutive devices dropped, and try to learn the sum of those few."""
    masked = {}

    def keep(stage: Stage, device: int, data: bytes) -> bytes:
        if stage is Stage.MASK:
            masked[fleet.ids.index(device)] = np.frombuffer(data[83:-64], "<u4").astype(np.uint32)
        return data

    fleet.play(until=Stage.CONFIRM, tamper=keep)
    server, offer = fleet.server, fleet.offer
    regular = ShareGraph(_regular(offer), server._root, len(fleet.ids))
    order, k = list(regular._order), regular.degree
    few = order[10 : 10 + k // 2 + 1]
    band = [*order[10 - k // 2 : 10], *order[10 + len(few) : 10 + len(few) + k // 2]]
    alive = tuple(rank for rank in range(len(fleet.ids)) if rank not in band)
    sets = SurvivorSets(
        context=offer.context, root=server._root, roster_size=len(fleet.ids), shared=server._shared, survivors=alive
    )
    signatures = {rank: fleet.devices[fleet.ids[rank]].confirm(fleet.sign(sets))[-64:] for rank in alive}
    confirmation = fleet.sign(
        Signatures(
            context=offer.context,
            root=server._root,
            roster_size=len(fleet.ids),
            signers=alive,
            signatures=tuple(signatures[rank] for rank in alive),
        )
    )
    shares: dict[int, dict[int, int]] = {}
    for rank in alive:
        reveal = Reveal.from_bytes(fleet.devices[fleet.ids[rank]].reveal(confirmation))
        for owner, share in zip(server._held(rank), reveal.shares, strict=True):
            shares.setdefault(owner, {})[rank + 1] = parse_share(share)

    def secret(rank: int) -> bytes:
        points = tuple(sorted(shares[rank]))[: server._graph.threshold]
        return combine(points, [shares[rank][point] for point in points]) or bytes(32)

    # By the rules the server now knows b of the few, and the mask keys of the band around them.
    keys, entries = PairKeys(offer.context, server._root), server._roster.entries
    total = np.zeros(offer.vector_length, np.uint32)
    for rank in few:
        total += masked[rank]
        add_mask(total, keys.self_mask(secret(rank)), subtract=True)
        for other in set(band) & set(server._graph.neighbours(rank)):
            key, pair = X25519PrivateKey.from_private_bytes(secret(other)), (rank, other)
            names = tuple(entries[place].device for place in pair)
            add_mask(total, keys.pair_mask(key, entries[rank].mask_key, names), subtract=rank < other)
    return total, [fleet.ids[rank] for rank in few]


def _regular(offer):
    return replace(offer, graph="k-regular-semi-honest", degree=6)


def test_a_lying_server_splits_a_regular_graph_and_learns_the_sum_of_a_few(secagg):
    # Why the weaker name: every survivor signed one set of 24, and the server has the sum of 4.
    fleet = secagg.fleet(30, strict=False, **REGULAR)
    total, few = _split_attack(fleet)
    assert len(few) == 4
    assert total.tolist() == fleet.sum_of(few).tolist()


def test_the_same_lie_on_the_complete_graph_gives_noise(secagg):
    fleet = secagg.fleet(30)
    total, few = _split_attack(fleet)
    truth = fleet.sum_of(few).astype(np.uint32)
    # A wrong value is right by chance once in 2^32; all 50 are masked by pairs with those that it left in.
    assert int((total == truth).sum()) <= 2
    assert fleet.server._held(0) == fleet.server._shared


def test_the_lie_that_would_isolate_them_on_the_complete_graph_is_refused(secagg):
    fleet = secagg.fleet(30)
    fleet.play(until=Stage.CONFIRM)
    sets = replace(fleet.server._sets, survivors=(10, 11, 12, 13))
    with pytest.raises(SurvivorsRefused, match="4 devices survive, 19 are needed"):
        fleet.devices[fleet.ids[10]].confirm(fleet.sign(sets))
