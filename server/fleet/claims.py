"""Against whom a fleet's guarantee holds, worked out from its keys and from where they lie: never from a wish."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from palate.errors import RunError
from palate.privacy.aggregators.admission import Parties
from palate.privacy.aggregators.claim import trust_of
from palate.privacy.budget import for_batch, for_roster
from palate.privacy.colluding import LeastSum
from palate.privacy.errors import PrivacyError
from palate.privacy.secagg.keys import Guarantee, claimed_guarantee
from palate.privacy.spoken import spoken
from palate.server.fleet.config import FleetConfig
from palate.server.fleet.folder import FleetFolder, read_key, read_public_key

_AMONG_PEERS: Final[dict[Guarantee, str]] = {
    "semi-honest": "holds against a server that follows the protocol and looks; its operators enrol the devices",
    "malicious": "holds against any server, while at most the share gamma of all enrolled devices colludes with it",
}


@dataclass(frozen=True)
class FleetClaim:
    """What may be claimed.

    Attributes
    ----------
    against
        "malicious" where it holds against operators that break the protocol too, else "semi-honest".
    meaning
        Who would have to do what, in words that follow "the guarantee" or stand alone.
    """

    against: Guarantee
    meaning: str


def claim_of(folder: FleetFolder, config: FleetConfig) -> FleetClaim:
    """Say against whom the guarantee of a fleet holds."""
    if not config.helper.there:
        against = claimed_guarantee(
            server_key=read_key(folder.server_key).public_key(),
            authority_key=read_public_key(folder.authority_public_key),
            authority_is_separate=folder.authority_is_separate(config.cohort.authority_is_separate),
        )
        return FleetClaim(against, _AMONG_PEERS[against])
    parties = parties_of(folder, config)
    if folder.authority_key.exists():  # whoever runs the server can sign as the authority
        parties = replace(parties, authority=parties.leader)
    trust = trust_of(parties)
    who = "a server or a helper that breaks the protocol" if trust.against_lies else "parties that follow the protocol"
    gamma = config.cohort.gamma
    noise = (
        f"at most {gamma:g} of the enrolled devices are corrupt" if gamma else "every device in a sum adds its noise"
    )
    meaning = f"holds against {who}, while {noise}. {trust.sentence} {trust.assumption}"
    return FleetClaim("malicious" if trust.against_lies else "semi-honest", meaning.rstrip())


def words_of(folder: FleetFolder, config: FleetConfig) -> dict[str, str]:
    """Return the words of the keys of server, helper and authority, as far as the fleet has them."""
    keys = {"server": read_key(folder.server_key).public_key().public_bytes_raw()}
    if config.helper.there:
        keys["helper"] = bytes.fromhex(config.helper.key)
    if folder.authority_public_key.exists():
        keys["authority"] = read_public_key(folder.authority_public_key).public_bytes_raw()
    return {name: spoken(key) for name, key in keys.items()}


def planned_sums(config: FleetConfig, enrolled: int) -> list[LeastSum]:
    """List all rounds that a fleet's budget pays for, each at its worst: the fewest vectors that it may add up.

    Parameters
    ----------
    config
        What the operator decided.
    enrolled
        Devices that are enrolled; while there are fewer than the run is planned for, those of the plan count.
    """
    terms, cohort = config.server_settings().terms, config.cohort
    assert terms is not None  # a fleet's rounds are protected
    enrolled = max(enrolled, cohort.devices)
    asked = min(enrolled, cohort.largest)
    if config.helper.there:
        least = cohort.least_batch(asked)
        spread = for_batch(terms, honest_shares=max(1, least - cohort.corrupt(enrolled)), most_reports=asked)
    else:
        try:
            quorum = cohort.quorum(enrolled)
        except PrivacyError:  # more are enrolled than any round of this run bears
            return []
        least = max(cohort.smallest, quorum.survivors_needed(asked))
        spread = for_roster(terms, quorum, asked)
    popularity, train = (
        LeastSum(sensitivity=each.sensitivity, share_variance=each.share_variance, least=least, enrolled=enrolled)
        for each in (spread.popularity, spread.train)
    )
    spare = config.privacy.spare_rounds
    return [popularity] * (1 + spare) + [train] * (config.schedule.rounds + spare)


def parties_of(folder: FleetFolder, config: FleetConfig) -> Parties:
    """Return the keys of a fleet with a helper; without an authority, leader and helper admit devices together.

    Raises
    ------
    RunError
        If the fleet has no helper, or a key is missing.
    """
    if not config.helper.there:
        raise RunError(
            f"{folder.root}: this fleet has no helper", hint="palate server init --helper makes one that has"
        )
    authority = folder.authority_public_key
    return Parties(
        leader=read_key(folder.server_key).public_key().public_bytes_raw(),
        helper=bytes.fromhex(config.helper.key),
        authority=read_public_key(authority).public_bytes_raw() if authority.exists() else None,
    )
