"""What goes wrong with the devices of a swarm, drawn from a seed before it begins: deaths, and lies."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np


class Moment(StrEnum):
    """When a device is killed."""

    BEFORE_REPORT = "before its report is made"
    BEFORE_SEND = "between keeping its report and sending it"
    BEFORE_RECEIPT = "after sending its report, before the receipt"


class Lie(StrEnum):
    """What a device does wrong in every round."""

    BAD_CERTIFICATE = "bad certificate"
    TWO_REPORTS = "two reports"
    WRONG_CONTEXT = "wrong context"
    REPLAY = "replay"
    UNSEALABLE = "unsealable"


REFUSED_AS = {
    Lie.BAD_CERTIFICATE: "ReportRefused: the report is not signed by its device",
    Lie.TWO_REPORTS: "a second reply to one question",
    Lie.WRONG_CONTEXT: "ReportRefused: the report is for another offer",
    Lie.REPLAY: "ReportRefused: the report is for another offer",
    Lie.UNSEALABLE: "left out by the helper: unsealable",
}
"""How leader, helper or the server's mailbox name what they refuse. A replay names the offer that it was made for."""


@dataclass(frozen=True, kw_only=True)
class Death:
    """One device is killed once.

    Attributes
    ----------
    server_round, moment
        When.
    returns
        Whether it is started again in the same round; otherwise it stays away for good.
    """

    server_round: int
    moment: Moment
    returns: bool


@dataclass(frozen=True)
class Faults:
    """Deaths and lies by the place of the device; a liar is not killed, so that every lie can be counted."""

    deaths: dict[int, Death]
    lies: dict[int, Lie]

    @staticmethod
    def drawn(devices: int, *, killed: float, lying: float, rounds: int, seed: int) -> Faults:
        """Draw who dies and who lies: shares of the devices; kinds of lies and moments come in turn.

        Parameters
        ----------
        devices, rounds
            How many there are.
        killed, lying
            Shares, together at most 1.
        seed
            Of the draw.
        """
        rng = np.random.default_rng([seed, devices])
        order = rng.permutation(devices)
        liars, victims = round(lying * devices), round(killed * devices)
        lies = {int(device): tuple(Lie)[place % len(Lie)] for place, device in enumerate(order[:liars])}
        deaths = {
            int(device): Death(
                server_round=int(rng.integers(rounds)),
                moment=tuple(Moment)[place % len(Moment)],
                returns=bool(rng.integers(2)),
            )
            for place, device in enumerate(order[liars : liars + victims])
        }
        return Faults(deaths, lies)
