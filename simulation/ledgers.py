"""Ledgers of a simulated federation: every virtual device's and the server's, in the run folder.

The same format, rules and order as on a real device (docs/formats/ledger.md), written in batches: one signature and
one commit for all devices of a shard. The machine that simulates holds the key. A virtual device's payload is its
shard's answer: which is what left the node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.client.guard import Guard
from palate.errors import RunError
from palate.models.arrays import Int64Array
from palate.privacy.accounting.events import Unit
from palate.privacy.budget import Promise
from palate.privacy.charging import intents, ledger_name
from palate.privacy.ledger.body import NO_HASH, RELEASED, Intent, Outcome, hash_text
from palate.privacy.ledger.errors import RoundRefused
from palate.privacy.ledger.heads import note_heads
from palate.privacy.ledger.store import LedgerBook
from palate.privacy.ledger.verify import verify_ledger
from palate.privacy.wire import ItemUpdate, RoundPlan
from palate.server.fleet.folder import make_key, write_public_key
from palate.server.ledger import SERVER, ServerLedger
from palate.simulation.noise_keys import read_secret

FOLDER = "ledgers"

Promises = Mapping[Unit, Promise]


def have_keys(folder: Path) -> bool:
    """Whether a run folder has its Ed25519 key pair: its ledgers may have begun."""
    return (folder / FOLDER / "public.key").exists()


def make_keys(folder: Path) -> None:
    """Put a new Ed25519 key pair into a run folder, unless there is one."""
    place = folder / FOLDER
    place.mkdir(exist_ok=True)
    if have_keys(folder):
        return
    (place / "signing.key").unlink(missing_ok=True)  # of a run that was killed right here
    write_public_key(place / "public.key", make_key(place / "signing.key").public_key())


def read_signing_key(folder: Path) -> Ed25519PrivateKey:
    """Read a run folder's key; raises RunError where it is missing or damaged."""
    return Ed25519PrivateKey.from_private_bytes(read_secret(folder / FOLDER / "signing.key"))


def device_name(user: int) -> str:
    """Name a virtual device in its ledgers."""
    return f"device-{user:06d}"


def open_guard(folder: Path, user: int, promises: Promises) -> Guard:
    """Return the guard of a virtual device that runs by itself and has its own ledger file."""
    name = device_name(user)
    return Guard(folder / FOLDER / f"{name}.sqlite", read_signing_key(folder), name, promises)


class ShardLedgers:
    """Ledgers of a shard's virtual devices, one file.

    Parameters
    ----------
    folder
        The run folder.
    shard
        Number of the shard.
    users
        Its people, int64 [n].
    promises
        Every device's budgets.
    """

    def __init__(self, folder: Path, shard: int, users: Int64Array, promises: Promises) -> None:
        self._path = folder / FOLDER / f"shard-{shard:04d}.sqlite"
        self._signer = read_signing_key(folder)
        self._book = LedgerBook(self._path, self._signer)
        self._devices = [device_name(int(user)) for user in users]
        self._promises = dict(promises)
        for unit, promise in promises.items():
            names = [ledger_name(device, unit) for device in self._devices]
            known = set(self._book.names)
            self._book.create([name for name in names if name not in known], promise.policy(smallest_cohort=1))

    def begin(self, plan: RoundPlan, taking_part: Int64Array) -> None:
        """Charge a round to devices of the shard, int64 [m]; charges of a killed process stay.

        Raises
        ------
        BudgetExceeded, PolicyRefused, RoundRefused
            If a ledger refuses the round; then nothing is charged.
        PrivacyError
            If its integers are coarser than the budgets count on.
        """
        round_key = (plan.run, plan.server_round)
        charges: list[tuple[str, Intent]] = []
        for unit, intent in intents(plan).items():
            self._promises[unit].require(intent)
            for device in taking_part:
                name = ledger_name(self._devices[device], unit)
                state = self._book.state(name)
                begun = state.open.get(round_key)
                if begun is None and round_key not in state.closed:
                    charges.append((name, intent))
                elif begun is not None and begun != intent:
                    raise RoundRefused(f"round {plan.server_round} was charged with other parameters")
        self._book.append_batch(charges)

    def finish(self, plan: RoundPlan, taking_part: Int64Array, update: ItemUpdate) -> None:
        """Close a round with the bytes that leave the node.

        Raises
        ------
        RoundRefused
            If the round left with other bytes before.
        """
        payload = hash_text(update.vector.tobytes())
        run, number = plan.run, plan.server_round
        outcome = Outcome(run=run, round=number, status=RELEASED, payload=payload, receipt=NO_HASH)
        ends: list[tuple[str, Outcome]] = []
        repeated: str | None = None  # one is enough: a shard's devices close with the same bytes
        for unit in intents(plan):
            for device in taking_part:
                name = ledger_name(self._devices[device], unit)
                if (plan.run, plan.server_round) not in self._book.state(name).closed:
                    ends.append((name, outcome))
                else:
                    repeated = name
        if repeated is not None and self._left_before(repeated, plan) != payload:
            raise RoundRefused(
                f"round {plan.server_round} of {plan.run} has left with other bytes before",
                hint="run it again with --fresh: two noisy answers to one round would be two releases",
            )
        if ends:
            self._book.append_batch(ends)
            note_heads(self._path, self._book)

    def _left_before(self, name: str, plan: RoundPlan) -> str:
        """Hash of the bytes with which a ledger closed a round."""
        events = verify_ledger(self._path, name, self._signer.public_key(), allow_open=True).events
        return next(
            event.payload
            for event in events
            if isinstance(event, Outcome) and (event.run, event.round) == (plan.run, plan.server_round)
        )


class RunLedger(ServerLedger):
    """The server's ledgers of a simulated run.

    They hold every round, also those that a capped device is not asked for: their budget is the schedule.

    Parameters
    ----------
    folder
        The run folder.
    promises
        What the run has promised.
    schedule
        A plan of every kind of round, and how many of it there are.
    """

    def __init__(self, folder: Path, promises: Promises, schedule: Sequence[tuple[RoundPlan, int]]) -> None:
        policies = {}
        for unit, promise in promises.items():
            planned = sum(rounds * intents(plan)[unit].charge_nano for plan, rounds in schedule)
            policies[unit] = replace(promise.policy(smallest_cohort=1), budget_nano=planned)
        super().__init__(folder / FOLDER / f"{SERVER}.sqlite", read_signing_key(folder), policies)

    def check(self, schedule: Sequence[RoundPlan]) -> None:
        """Check that the rounds that ran are those that a claim is about.

        Parameters
        ----------
        schedule
            The popularity plan and a training plan, with the terms of the claim.

        Raises
        ------
        RunError
            If a round was charged under other terms.
        """
        popularity, train = (intents(plan) for plan in schedule)
        for unit in train:
            for charged in self.charged(unit):
                planned = (train if charged.round else popularity)[unit]
                if (charged.clip_int, charged.sum_var_int) != (planned.clip_int, planned.sum_var_int):
                    raise RunError(
                        f"round {charged.round} ran with noise of variance {charged.sum_var_int}, the claim would be "
                        f"about {planned.sum_var_int}",
                        hint="another version began this run: run it again with --fresh",
                    )
