"""Text of a guarantee: the same sentences on the terminal and in the report."""

from __future__ import annotations

from palate.privacy.accounting.guarantee import round_up
from palate.simulation.report.records import Claim, GuaranteeRecord


def claim(found: Claim) -> str:
    """Say the claim in one line; epsilon is rounded up."""
    return f"epsilon {round_up(found.epsilon)} at delta {found.delta:g} per {found.unit}"


def facts(guarantee: GuaranteeRecord) -> dict[str, str]:
    """Return everything that is needed to read the claim, by name."""
    noise, rounds = guarantee.noise_multipliers, guarantee.device_rounds
    checks = ", ".join(f"{check.accountant} {check.epsilon:.3f}" for check in guarantee.cross_checks)
    found = {"guarantee": claim(guarantee)}
    for further in guarantee.further:
        found["and by each device alone"] = claim(further)
    found |= {
        "compared worlds": guarantee.adjacency,
        "proven by": guarantee.accountant,
        "cross-checked, noise as Gaussian": checks,
        "amplification": guarantee.amplification,
        "mechanism": guarantee.mechanism,
        "noise": f"multiplier {noise.popularity:.3f} in the popularity round, {noise.train:.3f} in "
        + ("the training round" if rounds == 1 else f"each of {rounds} training rounds")
        + _shares(guarantee),
        "holds if": "; ".join(guarantee.assumptions),
    }
    if guarantee.local is not None:
        alone = round_up(guarantee.local.epsilon, 1)
        found["without secure aggregation"] = f"epsilon {alone} per {guarantee.unit}: no protection by itself"
    if guarantee.notes:
        found["beware"] = "; ".join(guarantee.notes)
    found["not covered"] = "the held-out metrics of a simulation, which are exact; other runs on the same people"
    return found


def _shares(guarantee: GuaranteeRecord) -> str:
    if guarantee.local is None:
        return "; each device's own"
    return f"; sized for {guarantee.honest_shares:,} honest devices of {guarantee.roster_size:,}"
