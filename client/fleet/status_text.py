"""Rounds and status in words, for a terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from palate.client.fleet.limits import DEFAULT_DELTA
from palate.client.fleet.profile import FleetProfile
from palate.client.fleet.round_log import OPEN, RELEASED, RoundRecord
from palate.client.fleet.status import BudgetGauge, DeviceStatus, round_json, spent_epsilon, windows_ahead
from palate.client.fleet.trust import against_server, trust_sentence
from palate.privacy.accounting.events import Unit
from palate.privacy.accounting.filters import budget_nano_for
from palate.privacy.accounting.guarantee import round_up
from palate.privacy.budget import Promise
from palate.privacy.colluding import colluding_words
from palate.privacy.enrolment import device_name
from palate.privacy.ledger.state import utc
from palate.privacy.run_notice import RunNotice

_GAUGE_WIDTH = 24
_SHORT = 16


class RoundLines:
    """Says a line when a round begins and one when it ends; to be told of every change of a record.

    Parameters
    ----------
    say
        Takes a line.
    as_json
        One JSON object a line, when a round ends.
    """

    def __init__(self, say: Callable[[str], None], *, as_json: bool = False) -> None:
        self._say = say
        self._as_json = as_json
        self._said: dict[tuple[str, int], str] = {}

    def __call__(self, record: RoundRecord) -> None:
        """Take note of a record."""
        place, moment = (record.run, record.server_round), "began" if record.ended == OPEN else record.ended
        if self._said.get(place) == moment:
            return
        self._said[place] = moment
        if self._as_json:
            if moment != "began":
                self._say(json.dumps(round_json(record), allow_nan=False))
        elif moment == "began":
            self._say(
                f"round {record.server_round} ({record.purpose}): taking part; epsilon {round_up(record.epsilon)}, "
                f"{round_up(record.total_epsilon)} in all; {_alone(record)}"
            )
        else:
            self._say(f"round {record.server_round}: {ending(record)}")


def ending(record: RoundRecord) -> str:
    """Say how a round ended, and what was sent in it."""
    sent = f"{record.bytes_sent / 1000:.1f} kB sent"
    vector = record.vector_sent
    if record.ended == RELEASED and vector is not None:
        sent += f", masked vector sha256 {str(vector['sha256'])[:_SHORT]}"
    if record.receipt:
        return f"done; {sent}; new table {record.receipt['model_hash'][:_SHORT]}"
    if record.ended == RELEASED:
        return f"no receipt came; {sent}; the charge stands"
    return f"{record.ended}; {sent}, no vector among it; the charge stands" if record.ended != OPEN else f"open; {sent}"


def _fleet_lines(profile: FleetProfile, device: str) -> Iterator[str]:
    fleet = f"fleet      {profile.welcome.fleet} at {profile.welcome.address}"
    known_as = device_name(profile.welcome.device)
    if known_as != device:
        fleet += f", as device {known_as}, whose key this one's has replaced"
    if profile.trust is None:
        yield f"{fleet}; against its server: {against_server(profile)}"
    else:
        yield fleet
        yield f"trust      {trust_sentence(profile)}"
        for name, words in profile.words.items():
            yield f"           {name}'s words: {words}"


def status_lines(status: DeviceStatus, *, explain: bool = False) -> Iterator[str]:
    """Say all that there is to say about a device, line by line; `explain` as for `budget_lines`."""
    yield f"device     {status.device}   (vault key in {'a file' if status.keeper == 'file' else 'the keyring'})"
    if status.profile is None:
        yield "fleet      none; palate client enrol --request FILE asks one to take this device in"
    else:
        yield from _fleet_lines(status.profile, status.device)
    if status.removed_at is not None:
        yield (
            f"removed    {_day(status.removed_at)}  the fleet's operator has removed this device, and it is asked for "
            "nothing; ask why, or leave: palate client leave"
        )
    if status.paused:
        yield "paused     no round is begun until palate client pause --off"
    if status.budget is not None:
        yield from budget_lines(status.budget, explain=explain)
        if explain and (words := colluding_sentence(status)):
            yield f"           {words}"
        if status.profile is not None and (notice := status.profile.notice) is not None:
            over = f"run {notice.run} is over; the next one begins when the fleet's operator says so"
            yield f"run        {over if status.run_is_over else run_words(notice, status.budget)}"
    elif status.carried_nano:
        yield f"carried    {carried_words(status.carried_nano, explain=explain)}"
    yield f"history    {status.interactions} interactions"
    table = f"{status.table_hash[:_SHORT]}, {status.table_items} items" if status.table_hash else "none yet"
    yield f"table      {table}"
    for record in status.rounds:
        yield (
            f"round {record.server_round:<4} {_day(record.began)}  {record.purpose:<10}  "
            f"epsilon {round_up(record.epsilon)} ({_alone(record)}); {ending(record)}"
        )
    for refusal in status.refusals:
        yield f"refused    {_day(refusal['at'])}  round {refusal['server_round']}: {refusal['why']}"


def colluding_sentence(status: DeviceStatus) -> str:
    """Say what the rounds so far would be worth if more devices colluded; empty before the first."""
    if status.budget is None or status.profile is None or not status.if_colluding:
        return ""
    of = "a round's devices" if status.profile.trust is None else "the enrolled devices"
    return "all rounds so far, " + colluding_words(status.if_colluding, status.budget.delta, of=of)


def run_words(notice: RunNotice, budget: BudgetGauge) -> str:
    """Say what a run plans to spend, and what this device's budget has for it."""
    planned = budget_nano_for(budget.promise.meter, notice.epsilon, notice.delta)
    left = max(budget.budget_nano - budget.spent_nano, 0)
    until = " until its budget renews" if budget.every_seconds else ""
    then = "it takes part in all of it" if left >= planned else f"it refuses rounds that cost more than that{until}"
    return (
        f"run {notice.run} plans {_count(1 + notice.rounds, 'round')} within epsilon {notice.epsilon:g} at delta "
        f"{notice.delta:g} per user, over {notice.num_items:,} items: {_percent(planned, budget)} of this device's "
        f"budget, of which {_percent(left, budget)} is left; {then}"
    )


def _percent(nano: int, budget: BudgetGauge) -> str:
    return f"{math.ceil(1000 * nano / budget.budget_nano) / 10:g}%" if budget.budget_nano else "all"


def budget_lines(budget: BudgetGauge, *, explain: bool = False) -> Iterator[str]:
    """Draw how much is spent, and say of which window; `explain` says what epsilon is about and windows add up to."""
    filled, percent = round(budget.share * _GAUGE_WIDTH), math.ceil(budget.share * 1000) / 10
    yield (
        f"budget     [{'#' * filled}{'.' * (_GAUGE_WIDTH - filled)}] {percent:g}% spent; "
        f"epsilon {round_up(budget.spent_epsilon)} of {budget.epsilon:g} at delta {budget.delta:g} per user, "
        f"{budget.promise.covers}"
    )
    if budget.every_seconds:
        yield f"           {window_words(budget)}"
    if budget.carried_nano:
        yield f"           {carried_words(budget.carried_nano, budget.delta)}"
    if explain:
        yield f"           {budget.promise.words}"
    if explain and budget.every_seconds:
        yield f"           {ahead_words(budget.promise)}"


def window_words(budget: BudgetGauge) -> str:
    """Say which window the figures of a budget that renews are about, and what all windows come to."""
    life = f"all rounds so far, {_count(budget.windows, 'window')}: epsilon {round_up(budget.life_epsilon)}"
    if budget.window is None:
        return f"the first window begins when the device joins; {life}"
    if budget.spent_nano == budget.carried_nano and budget.life_nano > budget.spent_nano:
        return f"a new window begins with the next round, the last ended {utc(budget.window.ends)}; {life}"
    return f"in the window of {utc(budget.window.begins)} to {utc(budget.window.ends)} UTC, then it renews; {life}"


def ahead_words(promise: Promise) -> str:
    """Say what a budget that renews adds up to, if it is used up in every window."""
    sums = [
        f"{round_up(epsilon)} in {_count(years, 'year')} ({_count(windows, 'window')})"
        for years, (windows, epsilon) in windows_ahead(promise).items()
    ]
    return (
        f"used up in every window, the budgets add up to epsilon {' and '.join(sums)} at delta {promise.delta:g}, "
        "for whoever has seen all tables"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def carried_words(nano: int, delta: float = DEFAULT_DELTA, *, explain: bool = False) -> str:
    """Say what earlier devices in this one's place had spent, given in 1e-9 of 2 rho at unit user."""
    words = (
        f"an earlier device of yours had spent epsilon {round_up(spent_epsilon(nano, delta))} at delta {delta:g} "
        "per user, for all rounds together; it counts as spent in every fleet that this one joins"
    )
    if not explain:
        return words
    return f"{words}; {Promise(unit=Unit.USER, epsilon=spent_epsilon(nano, delta), delta=delta).words}"


def left_words(fleet: str) -> str:
    """Say that a device left its fleet."""
    return f"left fleet {fleet}; what was sent before cannot be taken back, and stays charged"


def _alone(record: RoundRecord) -> str:
    alone = "leader and helper worked together" if record.anchor else "secure aggregation failed"
    return f"{round_up(record.local_epsilon)} if {alone}"


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M")
