"""What a fleet's number of devices and its protocol decide, with reasons: how many a round needs, how many may be away.

The settings of learning follow from the same resolver as a simulation's (`palate.server.resolving`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from palate.privacy.aggregators.admission import MAX_REGISTERED
from palate.server.resolving import Choice
from palate.server.values import flat

LARGEST_ROSTER = 300
"""Most devices of a round among peers: beyond, the complete graph of masks costs a device more than it is worth."""

USUAL_DEVICES = 20
_MOST_AWAY = 0.25
"""Share of the devices of a round that may fall away under two aggregators: they send one report, and are done."""


def _spares(devices: int) -> Choice:
    """Decide how many lost rounds a budget is sized for under two aggregators; noise in every round pays for it."""
    if devices <= LARGEST_ROSTER:
        return Choice(1, f"{devices} devices learn in a round or two: a lost one is repeated from a budget kept for it")
    return Choice(0, "a lost round is repeated, and the run has a training round less: no noise is spent beforehand")


def cohort_choices(asked: Mapping[str, Any], *, helper: bool) -> dict[str, Choice]:
    """Decide what a round needs, where nobody asked for something else.

    Parameters
    ----------
    asked
        Nested values of fleet.toml, not checked yet.
    helper
        Whether rounds go through two aggregators.

    Returns
    -------
    By dotted name.
    """
    given = flat(asked)
    devices = given.get("cohort.devices", USUAL_DEVICES)
    devices = devices if isinstance(devices, int) and devices > 0 else USUAL_DEVICES  # refused when it is checked
    found = {
        "cohort.smallest": Choice(
            max(min(devices, 3), math.ceil(devices / 2)),
            f"half of the {devices} devices that the run is planned for, rounded up, and 3 where there are so many",
        )
    }
    if helper:
        found |= {
            "cohort.largest": Choice(MAX_REGISTERED, "two aggregators add up as many reports as come"),
            "cohort.tau": Choice(
                1 - _MOST_AWAY, f"a device sends one report; {_MOST_AWAY:.0%} of those who are asked may fall away"
            ),
            "privacy.spare_rounds": _spares(devices),
        }
    else:
        gamma = given.get("cohort.gamma", 0.0)
        gamma = gamma if isinstance(gamma, int | float) and 0 <= gamma < 0.5 else 0.0
        smallest = given.get("cohort.smallest", found["cohort.smallest"].value)
        smallest = smallest if isinstance(smallest, int) and smallest > 0 else 1  # refused when it is checked
        corrupt = round(gamma * 1000) * devices // 1000
        tau = min(math.ceil((1000 + -(-1000 * corrupt // smallest)) / 2), 999) / 1000
        found |= {
            "cohort.largest": Choice(
                max(devices, LARGEST_ROSTER), "among peers every device shares masks with every other"
            ),
            "cohort.tau": Choice(
                tau,
                f"the least that lets no two sums of a round be revealed: (1 + {corrupt} corrupt devices over the "
                f"smallest round of {smallest}) / 2",
            ),
        }
    return {name: choice for name, choice in found.items() if name not in given}
