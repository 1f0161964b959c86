"""What the owner can see: the budget, every round and what was sent in it, the limits, and why rounds were refused."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from palate.client.fleet.carried_spending import carried_nano
from palate.client.fleet.folder import DeviceFolder
from palate.client.fleet.identity import DeviceKeys
from palate.client.fleet.member import ledger_guard
from palate.client.fleet.profile import PAUSED, REMOVED_AT, FleetProfile
from palate.client.fleet.round_log import RoundLog, RoundRecord
from palate.client.fleet.tables import read_table
from palate.client.fleet.trust import trust_sentence
from palate.client.vault import Vault
from palate.client.vault.history import History
from palate.errors import RunError
from palate.privacy.accounting.events import Unit
from palate.privacy.accounting.filters import SkellamMeter, budget_nano_for
from palate.privacy.budget import SENSITIVITY, Promise
from palate.privacy.colluding import IfColluding, LeastSum, if_colluding
from palate.privacy.durations import DAY_SECONDS
from palate.privacy.enrolment import device_name
from palate.privacy.ledger.body import Window

FORMAT = "palate-client-status/1"
_YEAR_SECONDS = 365 * DAY_SECONDS


@dataclass(frozen=True, kw_only=True)
class BudgetGauge:
    """How much of the device's budget is spent.

    Attributes
    ----------
    epsilon, delta
        The budget at unit user.
    spent_epsilon
        What the rounds so far prove together; information, the budget is the promise.
    spent_nano, budget_nano
        The same in the ledger's exact figures, 1e-9 of 2 rho; the gauge is their ratio.
    carried_epsilon, carried_nano
        What of that earlier devices had spent: one that was forgotten here, or earlier keys of the same person.
    every_seconds
        How long a window is where the budget renews; 0 where it is for life. All figures above are then about the
        window.
    window
        The window that is open, or was last; None where there is none. The next one begins with a round after it.
    life_epsilon, life_nano
        What all rounds of all windows prove together, and the same in the ledger's figures.
    windows
        Windows so far.
    """

    epsilon: float
    delta: float
    spent_epsilon: float
    spent_nano: int
    budget_nano: int
    carried_epsilon: float = 0.0
    carried_nano: int = 0
    every_seconds: int = 0
    window: Window | None = None
    life_epsilon: float = 0.0
    life_nano: int = 0
    windows: int = 0

    @property
    def share(self) -> float:
        """Spent part of the budget, 0 to 1."""
        return min(self.spent_nano / self.budget_nano, 1.0) if self.budget_nano else 1.0

    @property
    def promise(self) -> Promise:
        """What its epsilons are about."""
        return Promise(
            unit=Unit.USER,
            epsilon=self.epsilon,
            delta=self.delta,
            sensitivity=SENSITIVITY,
            every_seconds=self.every_seconds,
        )

    @property
    def adds_up(self) -> dict[int, tuple[int, float]]:
        """Windows in some years, by the years, and the epsilon if the budget is used up in each; empty for life."""
        return windows_ahead(self.promise)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, with all that it takes to read an epsilon."""
        values = asdict(self)
        window = values.pop("window")
        ends = None if self.window is None else self.window.ends
        return {
            **values,
            "share": self.share,
            "window": None if window is None else {**window, "ends": ends},
            "adds_up": [
                {"years": years, "windows": count, "epsilon": epsilon}
                for years, (count, epsilon) in self.adds_up.items()
            ],
            **self.promise.reading,
        }


@dataclass(frozen=True, kw_only=True)
class DeviceStatus:
    """All that `palate client status` shows.

    Attributes
    ----------
    device, keeper, ledger_key
        The device's name, where its vault's key lies, and the public key that signs its ledger.
    profile
        The fleet; None if the device belongs to none.
    budget
        None before there is a fleet.
    rounds
        In the order in which they began.
    interactions
        Entries of the history.
    run_is_over
        Whether the final table has come of the last run that the server gave notice of.
    table_hash, table_items
        Of the last table; empty and 0 if none has come.
    refusals
        The last ones, oldest first.
    paused
        Whether the owner wants no rounds for now.
    removed_at
        When the fleet last said that it has removed this device, in seconds since 1970; None if it did not.
    carried_nano
        What earlier devices had spent at unit user, in 1e-9 of 2 rho.
    """

    device: str
    keeper: str
    ledger_key: str
    profile: FleetProfile | None
    budget: BudgetGauge | None
    rounds: list[RoundRecord]
    interactions: int
    table_hash: str
    table_items: int
    run_is_over: bool
    refusals: list[dict[str, Any]]
    paused: bool
    removed_at: int | None
    carried_nano: int = 0

    @property
    def if_colluding(self) -> list[IfColluding]:
        """What all rounds of this device so far would prove if more devices colluded; empty before the first."""
        if self.budget is None:
            return []
        rounds = [LeastSum(**record.least_sum) for record in self.rounds if record.least_sum]
        return if_colluding(rounds, self.budget.delta)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; an epsilon that is not finite is null."""
        profile, budget = self.profile, self.budget
        fleet = None
        if profile is not None:
            welcome = profile.welcome
            fleet = {
                "name": welcome.fleet,
                "address": welcome.address,
                "welcome_fingerprint": welcome.fingerprint,
                "guarantee_against_the_server": profile.guarantee,
                "parties_to_collude": profile.parties,
                "device": device_name(welcome.device),
                "words": profile.words,
                "not_compared": profile.uncompared,
                "trust": trust_sentence(profile),
                "catalogue_items": welcome.num_items,
                "run": None if profile.notice is None else asdict(profile.notice),
                "limits": profile.limits.to_values(),
            }
        return {
            "format": FORMAT,
            "device": self.device,
            "vault_key": self.keeper,
            "ledger_key": self.ledger_key,
            "fleet": fleet,
            "budget": None if budget is None else budget.to_json(),
            "interactions": self.interactions,
            "table": {"hash": self.table_hash, "items": self.table_items} if self.table_hash else None,
            "rounds": [round_json(each) for each in self.rounds],
            "refusals": self.refusals,
            "paused": self.paused,
            "removed_at": self.removed_at,
            "carried_nano": self.carried_nano,
            "if_colluding": [each.to_json() for each in self.if_colluding],
        }


def status_of(folder: DeviceFolder) -> DeviceStatus:
    """Look at a device; its agent may be running.

    Raises
    ------
    VaultError, ConfigError
        If there is no device, or its vault cannot be opened.
    """
    with Vault.open(folder.vault) as vault:
        keys, profile, round_log = DeviceKeys.load(vault), FleetProfile.load(vault), RoundLog(vault)
        try:
            table = read_table(folder.table)
        except RunError:  # shown as missing; the next round brings a new one
            table = None
        notice = None if profile is None else profile.notice
        return DeviceStatus(
            device=keys.name,
            keeper=vault.keeper,
            ledger_key=keys.ledger.public_key().public_bytes_raw().hex(),
            profile=profile,
            budget=None if profile is None else budget_of(folder, vault, keys, profile),
            rounds=round_log.records(),
            interactions=len(History(vault).in_order()),
            table_hash="" if table is None else table.content_hash,
            table_items=0 if table is None else table.num_items,
            run_is_over=notice is not None and notice.run in round_log.standing().finished,
            refusals=round_log.refusals(),
            paused=PAUSED.read(vault) is not None,
            removed_at=REMOVED_AT.read(vault),
            carried_nano=carried_nano(vault).get(Unit.USER, 0),
        )


def budget_of(folder: DeviceFolder, vault: Vault, keys: DeviceKeys, profile: FleetProfile) -> BudgetGauge:
    """Say how much of a device's budget is spent, as its ledger has it."""
    limits, carried = profile.limits, carried_nano(vault).get(Unit.USER, 0)
    guard = ledger_guard(folder, vault, keys, profile)
    ledger, window = guard.spending()[Unit.USER], None
    life = ledger.spent_nano + carried
    spent = ledger.counted_nano + carried
    if limits.every_seconds and ledger.renews:
        window = ledger.window
        if window is not None and RoundLog(vault).now() >= window.ends:
            spent = carried  # the next round begins the next window
    return BudgetGauge(
        epsilon=limits.epsilon,
        delta=limits.delta,
        spent_epsilon=spent_epsilon(spent, limits.delta),
        spent_nano=spent,
        budget_nano=budget_nano_for(SkellamMeter(SENSITIVITY), limits.epsilon, limits.delta),
        carried_epsilon=spent_epsilon(carried, limits.delta),
        carried_nano=carried,
        every_seconds=limits.every_seconds,
        window=window,
        life_epsilon=spent_epsilon(life, limits.delta),
        life_nano=life,
        windows=ledger.windows,
    )


def windows_ahead(promise: Promise) -> dict[int, tuple[int, float]]:
    """Say what a budget that renews adds up to: windows in some years and their epsilon, by the years.

    Every window is counted as used up. Empty where the budget is for life.
    """
    if not promise.every_seconds:
        return {}
    counts = {years: -(-years * _YEAR_SECONDS // promise.every_seconds) for years in (1, 5)}
    return {years: (count, promise.over_windows(count)) for years, count in counts.items()}


def spent_epsilon(nano: int, delta: float) -> float:
    """Epsilon that charges of 1e-9 of 2 rho prove together at delta; 0 where nothing was charged."""
    return SkellamMeter(SENSITIVITY).epsilon(nano, delta) if nano else 0.0


def round_json(record: RoundRecord) -> dict[str, Any]:
    """Return a round as plain JSON values, without its offer and its salt."""
    values = asdict(record) | {"bytes_sent": record.bytes_sent}
    del values["offer"], values["anchor"]  # long, and for an audit; the vault's export has them
    return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in values.items()}
