"""A device that is open: its vault, keys, fleet and ledger together, and the agent that takes part in rounds."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from palate.client.fleet.carried_spending import carried_nano
from palate.client.fleet.folder import DeviceFolder
from palate.client.fleet.identity import DeviceKeys
from palate.client.fleet.next_run import meet_run
from palate.client.fleet.peer_rounds import PeerRounds
from palate.client.fleet.profile import PAUSED, REMOVED_AT, FleetProfile
from palate.client.fleet.reports import ReportRounds
from palate.client.fleet.round_log import RoundLog, RoundRecord
from palate.client.fleet.rounds import SecureRounds
from palate.client.fleet.tables import table_keeper
from palate.client.fleet.worker import Trainer, Worker
from palate.client.guard import Guard
from palate.client.vault import Vault
from palate.client.vault.history import History
from palate.errors import RunError
from palate.privacy import files
from palate.privacy.aggregators.admission import RENEW_SECONDS, Certificate
from palate.privacy.enrolment import ADMISSION_PATH
from palate.privacy.secagg.errors import SecureAggregationError

log = logging.getLogger(__name__)

LEDGER = "device"
"""Name of the device's ledger; it outlives fleets and their keys."""

_FAREWELL_SECONDS = 10.0


@dataclass(frozen=True, eq=False)
class Member:
    """A device that belongs to a fleet, with everything open.

    Attributes
    ----------
    folder, vault, keys, profile
        What it has on disk.
    """

    folder: DeviceFolder
    vault: Vault
    keys: DeviceKeys
    profile: FleetProfile

    @staticmethod
    @contextmanager
    def opened(folder: DeviceFolder) -> Iterator[Member]:
        """Open a device's folder.

        Raises
        ------
        VaultError, ConfigError
            If there is no vault, it cannot be opened, or the device belongs to no fleet.
        """
        with Vault.open(folder.vault) as vault:
            yield Member(folder, vault, DeviceKeys.load(vault), FleetProfile.require(vault))

    @property
    def guard(self) -> Guard:
        """The device's ledger under its owner's limits."""
        return ledger_guard(self.folder, self.vault, self.keys, self.profile)

    def taste(self) -> list[str]:
        """Keys of the items to learn from, oldest first; without what the owner dislikes, rated low or hides."""
        history = History(self.vault)
        marked = history.marks()
        entries = [entry for _, entry in history.in_order()]
        newest = {entry.item: entry.value for entry in entries}
        return [entry.item for entry in entries if entry.item not in marked and newest[entry.item] >= 0]

    def check_catalogue(self) -> None:
        """Compare the catalogue on disk with the welcome's.

        Raises
        ------
        RunError
            If it is missing or another.
        """
        path = self.folder.catalogue
        if not path.is_file() or sha256(path.read_bytes()).hexdigest() != self.profile.welcome.catalogue_sha256:
            raise RunError(
                f"{path} is missing, or is not the fleet's", hint="take the welcome in again: palate client enrol"
            )

    def worker(self, *, timeout_seconds: float, idle_seconds: float) -> Worker:
        """Return the process that will compute; it starts with the first round."""
        return Worker(
            self.folder.catalogue,
            self.profile.welcome.catalogue_sha256,
            timeout_seconds=timeout_seconds,
            idle_seconds=idle_seconds,
        )

    def rounds(
        self,
        trainer: Trainer,
        watch: Callable[[RoundRecord], None] = lambda _: None,
        *,
        meet_run: Callable[[str], FleetProfile | None] = lambda _: None,
    ) -> SecureRounds:
        """Put everything together that answers a server; the parts are those of `SecureRounds`.

        Raises
        ------
        Rollback, Fork
            If the ledger on disk is not the newest that this device had.
        """
        guard, round_log = self.guard, RoundLog(self.vault)
        with guard.held():
            guard.check_heads(round_log.heads())
            guard.adopt_policy()
        parts: dict[str, Any] = {
            "profile": self.profile,
            "keys": self.keys,
            "guard": guard,
            "round_log": round_log,
            "trainer": trainer,
            "history": self.taste,
            "keep_table": table_keeper(self.folder.table),
            "watch": watch,
            "paused": lambda: PAUSED.read(self.vault) is not None,
            "meet_run": meet_run,
        }
        if self.profile.welcome.parties is None:
            return PeerRounds(**parts)
        return ReportRounds(vault=self.vault, **parts)


def renew_admission(member: Member, address: str, *, now: int) -> Member:
    """Fetch a longer admission where less than a quarter of this one's life is left; the member with it.

    Only under two aggregators. What comes must be for the same device and key, and signed by all who admit, under the
    keys that this device pinned. A server that has none yet, or does not answer, changes nothing.
    """
    from palate.client.fleet.transport.link import FleetError, Link  # Flower is not needed, HTTP is

    welcome, parties = member.profile.welcome, member.profile.welcome.parties
    if parties is None or welcome.admission.not_after - now >= RENEW_SECONDS:
        return member
    own = welcome.admission
    try:
        with Link(address, member.keys.node, authority=member.folder.authority) as link:
            found = Certificate.from_bytes(link.call(ADMISSION_PATH, b""))
        found.verify(parties)
    except (FleetError, SecureAggregationError) as error:
        log.warning("the admission was not renewed: %s", error.message)
        return member
    if replace(found, not_after=own.not_after, signatures=()) != replace(own, signatures=()):
        log.warning("the admission was not renewed: another device's came")
        return member
    if found.not_after <= own.not_after:
        return member
    profile = replace(member.profile, welcome=replace(welcome, certificate=found.to_bytes().hex()))
    with member.vault.transaction():
        profile.save(member.vault)
    log.info("the admission is renewed until %d", found.not_after)
    return replace(member, profile=profile)


def ledger_guard(folder: DeviceFolder, vault: Vault, keys: DeviceKeys, profile: FleetProfile) -> Guard:
    """Return the guard of a device's ledger file, less what a device that was forgotten had spent."""
    limits = profile.limits
    return Guard(
        folder.ledger,
        keys.ledger,
        LEDGER,
        limits.promises,
        smallest_cohort=limits.smallest_cohort,
        carried=carried_nano(vault),
        clock=RoundLog(vault).latest_time,
    )


def take_part(
    member: Member,
    *,
    address: str | None = None,
    timeout_seconds: float = 120.0,
    idle_seconds: float = 60.0,
    once: bool = True,
    watch: Callable[[RoundRecord], None] = lambda _: None,
    met: Callable[[FleetProfile], None] = lambda _: None,
) -> str | None:
    """Run the agent until the fleet's run is over, or a signal ends it.

    Parameters
    ----------
    member
        The device; nobody else takes part with its folder (`DeviceFolder.locked`).
    address
        Another address than the welcome's, "host:port".
    timeout_seconds, idle_seconds
        Of the worker's computations, and until an idle worker ends.
    once
        End when a run is over; otherwise stay for the next one.
    watch
        Told of every round.
    met
        Told of the profile when the device learns what the fleet's current run plans.

    Returns
    -------
    str or None
        The run whose final table came; None if the agent was stopped before.

    Raises
    ------
    Removed
        If the server has removed this device; `palate client status` says so from then on.
    FleetError
        If the server is not trusted, does not know this device, or cannot be reached for long.
    RunError
        If the catalogue on disk is not the fleet's.
    """
    from palate.client.fleet.public_times import AtPublicTimes
    from palate.client.fleet.relay import relay_to  # Flower takes a second to import
    from palate.client.fleet.transport.agent import FleetAgent
    from palate.client.fleet.transport.link import Removed
    from palate.client.fleet.transport.supernode import Message

    address = address or member.profile.welcome.address
    files.replace(member.folder.authority, member.profile.welcome.ca_certificate.encode("ascii"))
    folder, vault, keys = member.folder, member.vault, member.keys

    def meet(run: str | None = None) -> FleetProfile | None:
        profile = meet_run(folder, vault, keys, FleetProfile.require(vault), address, run)
        if profile is not None:
            met(profile)
        return profile

    member = replace(member, profile=meet() or member.profile)
    member.check_catalogue()
    member = renew_admission(member, address, now=int(time.time()))
    worker = member.worker(timeout_seconds=timeout_seconds, idle_seconds=idle_seconds)
    rounds = member.rounds(worker, watch, meet_run=meet)
    program, run_over, ended = relay_to(AtPublicTimes(rounds)), threading.Event(), threading.Event()
    answers_due = 0

    def handle(message: Message) -> Message:
        nonlocal answers_due
        reply = program(message)
        if once and rounds.finished_run is not None and not run_over.is_set():
            answers_due = agent.answered + 1  # this one is still to be sent
            run_over.set()
        return reply

    agent = FleetAgent(
        address,
        member.keys.node,
        handle,
        authority=member.folder.authority,
        joined=lambda: REMOVED_AT.drop(member.vault),
    )

    def end_after_the_run() -> None:
        run_over.wait()
        deadline = time.monotonic() + _FAREWELL_SECONDS
        while agent.answered < answers_due and time.monotonic() < deadline and not ended.wait(0.05):
            pass
        agent.stop()

    threading.Thread(target=end_after_the_run, name="end-of-run", daemon=True).start()
    try:
        agent.run()
    except Removed:
        REMOVED_AT.write(member.vault, int(time.time()))
        raise
    finally:
        ended.set()
        rounds.close()
    return rounds.finished_run
