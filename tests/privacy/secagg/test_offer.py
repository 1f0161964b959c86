"""Offers, policies and enrolments: what may be promised, and to whom."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from palate.privacy.accounting.dropout import Quorum
from palate.privacy.mechanisms.terms import ReleaseTerms
from palate.privacy.secagg.errors import EnrolmentRefused, MessageError, OfferRefused, RoundAborted, VectorRefused
from palate.privacy.secagg.keys import DeviceIdentity, EnrolmentAuthority, EnrolmentCertificate, claimed_guarantee
from palate.privacy.secagg.offer import DevicePolicy, Offer
from palate.privacy.secagg.server import Stage
from palate.privacy.wire import RoundPlan

TERMS = ReleaseTerms(clip_norm=1.0, sensitivity=1 << 12, share_variance=1 << 20, honest_shares=41, roster_size=100)


def _plan(**changes) -> RoundPlan:
    return RoundPlan(**{
        "run": "run-1", "server_round": 3, "purpose": "train", "unit": "user", "participation": 1.0, "training": "{}",
        "fixed": np.zeros((5, 2), np.float32), "learned": np.zeros((5, 4), np.float32), "terms": TERMS, **changes,
    })  # fmt: skip


def _of(plan: RoundPlan) -> Offer:
    return Offer.of_plan(plan, fleet="f", gamma_thousandths=200, tau_thousandths=600, n_min=20, issued_at=1_700_000_000)


def test_an_offer_of_a_plan_is_for_that_plan():
    offer = _of(_plan())
    offer.check_plan(_plan())
    assert offer.plan_hash == _plan().content_hash
    assert (offer.vector_length, offer.max_roster, offer.honest_shares) == (20, 100, 41)


@pytest.mark.parametrize(
    "changes",
    [
        {"run": "run-2"},
        {"server_round": 4},
        {"training": '{"epochs": 2}'},
        {"evaluation_share": 0.1},
        {"learned": np.ones((5, 4), np.float32)},
        {"terms": replace(TERMS, share_variance=1 << 21)},
        {"terms": replace(TERMS, clip_norm=2.0)},
        {"terms": replace(TERMS, honest_shares=40)},
        {"terms": replace(TERMS, roster_size=99)},
        {"terms": replace(TERMS, ring_bits=40)},
    ],
)
def test_any_other_plan_is_found(changes):
    with pytest.raises(OfferRefused, match=r"the offer is not for this plan: .*plan_hash"):
        _of(_plan()).check_plan(_plan(**changes))


@pytest.mark.parametrize(
    "name", ["vector_length", "ring_bits", "sensitivity", "share_variance", "honest_shares", "max_roster"]
)
def test_an_offer_that_promises_other_numbers_than_its_plan_is_found(name):
    offer = _of(_plan())
    lying = replace(offer, **{name: getattr(offer, name) + (1 if name not in ("honest_shares", "max_roster") else -1)})
    with pytest.raises(OfferRefused, match=f"differ|{name}"):
        lying.check_plan(_plan())


def test_a_plan_without_terms_has_nothing_to_mask():
    with pytest.raises(OfferRefused, match="sends no integers"):
        _of(_plan(unit="none", terms=None))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"tau_thousandths": 599}, "tau_thousandths is 599, it must be between 600 and 999"),
        ({"tau_thousandths": 600, "gamma_thousandths": 201}, "between 601 and 999"),
        ({"tau_thousandths": 1000}, "between 600 and 999"),
        ({"gamma_thousandths": 500, "tau_thousandths": 900}, "gamma_thousandths is 500"),
        ({"honest_shares": 18}, "honest_shares is 18, it must be between 1 and 17"),
        ({"honest_shares": 0}, "honest_shares is 0"),
        ({"n_min": 1}, "n_min is 1"),
        ({"n_min": 41}, "n_min is 41"),
        ({"max_roster": 5000}, "max_roster is 5000"),
        ({"vector_length": 0}, "vector_length is 0"),
        ({"vector_length": (1 << 28) + 1}, "vector_length"),
        ({"ring_bits": 1}, "ring does not hold"),
        ({"ring_bits": 65}, "ring does not hold"),
        ({"ring_bits": 17}, "may reach"),
        ({"sensitivity": 0}, "sensitivity is 0"),
        ({"share_variance": 0}, "share_variance is 0"),
        ({"plan_hash": "AB" * 32}, "64 hexadecimal digits"),
        ({"degree": 4}, "degree is 4"),
    ],
)
def test_offers_that_protect_nobody_cannot_be_made(secagg, changes, match):
    with pytest.raises(OfferRefused, match=match):
        secagg.offer(**changes)


@given(st.integers(2, 2000), st.integers(0, 499), st.data())
def test_two_quorums_share_an_honest_signer_for_every_roster(size, gamma, data):
    tau = data.draw(st.integers(-(-(1000 + gamma) // 2), 999))
    quorum, corrupt = tau * size // 1000 + 1, gamma * size // 1000
    # The most signatures that two different pairs of sets can have together.
    assert 2 * quorum > (size - corrupt) + 2 * corrupt


@given(st.integers(1, 4096), st.integers(0, 499), st.data())
def test_quorums_agree_with_those_that_size_the_noise(size, gamma, data):
    tau = data.draw(st.integers(-(-(1000 + gamma) // 2), 999))
    quorum = Quorum(tau=tau / 1000, gamma=gamma / 1000)
    offer = Offer(
        fleet="f", run="r", server_round=0, plan_hash="ab" * 32, vector_length=1, ring_bits=40, sensitivity=1,
        share_variance=1, honest_shares=1, max_roster=4096, gamma_thousandths=gamma, tau_thousandths=tau, n_min=2,
    )  # fmt: skip
    assert offer.quorum(size) == quorum.survivors_needed(size)
    assert offer.quorum(size) - offer.corrupt(size) == quorum.honest_survivors(size)


def test_a_lower_quorum_would_let_two_sets_be_confirmed():
    # tau just below (1 + gamma) / 2: of 1000 devices 200 sign twice, and both sets get 600 >= q.
    size, gamma, tau = 1000, 200, 599
    quorum, corrupt = tau * size // 1000 + 1, gamma * size // 1000
    assert 2 * quorum <= (size - corrupt) + 2 * corrupt


def test_signing_an_offer_again_gives_the_same_bytes_and_context(secagg):
    key = Ed25519PrivateKey.generate()
    offer = secagg.offer()
    assert offer.sign(key) == offer.sign(key)
    opened = Offer.open(offer.sign(key), key.public_key())
    assert opened == offer
    assert opened.context == offer.context


def test_every_field_of_an_offer_is_in_its_context(secagg):
    offer = secagg.offer()
    changed = {
        "fleet": "other", "run": "other", "plan_hash": "cd" * 32, "ring_bits": 33,
        "tau_thousandths": 700, "gamma_thousandths": 100,
    }  # fmt: skip
    contexts = {offer.context}
    names = {f.name for f in fields(Offer)} - {"graph", "degree", "signature"}  # of one value; not in the body
    for name in names:
        contexts.add(replace(offer, **{name: changed.get(name) or getattr(offer, name) + 1}).context)
    assert len(contexts) == 1 + len(names)


@pytest.mark.parametrize(
    ("policy", "match"),
    [
        ({"smallest_cohort": 5}, "n_min is 4, this device's policy asks for at least 5"),
        ({"gamma_thousandths": 201}, "gamma_thousandths is 200"),
        ({"largest_roster": 39}, "max_roster is 40"),
    ],
)
def test_a_policy_refuses_offers_below_it(secagg, policy, match):
    accepted = {"smallest_cohort": 4, "gamma_thousandths": 200, "largest_roster": 40}
    DevicePolicy(**accepted).check(secagg.offer())
    with pytest.raises(OfferRefused, match=match):
        DevicePolicy(**(accepted | policy)).check(secagg.offer())


@pytest.mark.parametrize("policy", [(1, 0), (2, 500), (2, -1)])
def test_policies_that_protect_nobody_cannot_be_made(policy):
    with pytest.raises(OfferRefused, match="protects nobody"):
        DevicePolicy(smallest_cohort=policy[0], gamma_thousandths=policy[1])


def test_a_certificate_holds_for_its_fleet_key_and_time():
    authority, key = EnrolmentAuthority.generate("f"), Ed25519PrivateKey.generate()
    certificate = authority.enrol((1 << 64) - 1, key.public_key(), not_after=100)
    certificate.check(authority.public_key, fleet="f", issued_at=100)
    assert EnrolmentCertificate.from_bytes(certificate.to_bytes()) == certificate
    other = Ed25519PrivateKey.generate()
    for broken, arguments in (
        (certificate, {"fleet": "g", "issued_at": 1}),
        (certificate, {"fleet": "f", "issued_at": 101}),
        (replace(certificate, device=5), {"fleet": "f", "issued_at": 1}),
        (replace(certificate, not_after=0), {"fleet": "f", "issued_at": 1}),
        (replace(certificate, identity_key=other.public_key().public_bytes_raw()), {"fleet": "f", "issued_at": 1}),
    ):
        with pytest.raises(EnrolmentRefused):
            broken.check(authority.public_key, **arguments)
    with pytest.raises(EnrolmentRefused, match="is for another key"):
        DeviceIdentity(certificate, other)


@pytest.mark.parametrize(
    ("same_key", "separate", "claim"),
    [(False, True, "malicious"), (False, False, "semi-honest"), (True, True, "semi-honest")],
)
def test_only_a_separate_authority_allows_the_stronger_claim(same_key, separate, claim):
    server = Ed25519PrivateKey.generate().public_key()
    authority = server if same_key else Ed25519PrivateKey.generate().public_key()
    assert claim == claimed_guarantee(server_key=server, authority_key=authority, authority_is_separate=separate)


@pytest.mark.parametrize("fleet", ["", "a" * 129, "ünïcode", "new\nline"])
def test_names_have_one_spelling(secagg, fleet):
    with pytest.raises(MessageError, match="printable ASCII"):
        secagg.offer(fleet=fleet)


@pytest.mark.parametrize(
    "vector",
    [
        np.zeros(49, np.uint32),
        np.zeros(50, np.uint64),
        np.zeros(50, np.int32),
        np.zeros((50, 1), np.uint32),
        np.full(50, 1 << 24, np.uint32),
        [0] * 50,
    ],
    ids=["short", "wide", "signed", "matrix", "range", "list"],
)
def test_vectors_that_the_offer_does_not_ask_for_stay_on_the_device(secagg, vector):
    fleet = secagg.fleet(6, ring_bits=24)
    inboxes = fleet.play(until=Stage.MASK)
    fleet.vectors[fleet.ids[0]] = vector
    with pytest.raises(VectorRefused):
        fleet.answer(fleet.ids[0], Stage.MASK, inboxes[fleet.ids[0]])
    assert fleet.devices[fleet.ids[0]].aborted


def test_steps_out_of_order_end_the_round(secagg):
    fleet = secagg.fleet(6)
    device = fleet.devices[fleet.ids[0]]
    with pytest.raises(RoundAborted, match="not the step that comes next"):
        device.share(b"")
    with pytest.raises(RoundAborted, match="after the round ended here"):
        device.advertise()


def test_an_abandoned_round_gives_nothing_more(secagg):
    device = secagg.fleet(6).devices[100]
    device.advertise()
    device.abandon()
    assert device._secrets is None
    with pytest.raises(RoundAborted, match="abandoned"):
        device.advertise()
