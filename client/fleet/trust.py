"""In words: who could read what a device sends, by the keys that came with its welcome."""

from __future__ import annotations

from palate.client.fleet.profile import FleetProfile


def against_server(profile: FleetProfile) -> str:
    """Say what protects from the server of a fleet of peers, and what that rests on."""
    if profile.guarantee == "semi-honest":
        return "protected if its operators keep to the protocol: they enrol devices, and could invent some"
    colluding = profile.limits.least_gamma_thousandths / 10
    return (
        "protected also if its operators break the protocol, provided that others enrol the devices, as it states, "
        + (
            f"and at most {colluding:g}% of the enrolled devices collude with it, as it counts them"
            if colluding
            else "and none colludes with it"
        )
    )


def trust_sentence(profile: FleetProfile) -> str:
    """Say, for a page, who would have to work together to read what this device sends."""
    trust = profile.trust
    if trust is None:
        return f"Against that server you are {against_server(profile)}."
    if not trust.against_lies:
        return trust.sentence
    corrupt = profile.limits.least_gamma_thousandths / 10
    allowed = f"up to {corrupt:g}% of all registered devices" if corrupt else "no device"
    return f"{trust.sentence} {trust.assumption} {_compared(profile)} The noise allows for {allowed} working with them."


def _compared(profile: FleetProfile) -> str:
    """Say which keys the owner has compared with those who hold them: the server's operators write invitations."""
    whose = " and ".join(f"the {name}" for name in profile.uncompared)
    if not whose:
        return "You have compared their words with those who hold them."
    return f"Only the invitation says who holds them: ask {whose} for the words, then palate client compare WORDS."
