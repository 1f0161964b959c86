"""One virtual device: the folder, vault, ledger, rounds and agent of a real one.

Two things are not as in `palate client join`. Training runs in this process (`InProcess`) and not in a worker of the
device's own, and the device has a connection only while it has its turn: the server does not take thousands. A virtual
device is killed by an exception that nothing catches; what it had in memory is dropped, what is on disk stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from palate.client.fleet.folder import DeviceFolder
from palate.client.fleet.member import Member
from palate.client.fleet.relay import relay_to
from palate.client.fleet.round_log import RoundLog
from palate.client.fleet.rounds import SecureRounds
from palate.client.fleet.transport.agent import FleetAgent
from palate.client.fleet.transport.pacing import Pace
from palate.client.fleet.transport.supernode import Message
from palate.client.fleet.worker import Contribution, contribution_in, question
from palate.client.fleet.worker_process import answer
from palate.client.vault import Vault
from palate.models.table import ItemTable
from palate.privacy import files
from palate.privacy.enrolment import EnrolmentRequest, device_name
from palate.privacy.integer.ring import RingArray
from palate.privacy.wire import FleetMessage, FleetStep, RoundPlan
from palate.simulation.fleet_demo.folders import join, make_device
from palate.simulation.swarm.faults import Death, Lie, Moment
from palate.simulation.swarm.lies import forged

_DYING = Pace(heartbeat_seconds=10.0)


class Killed(BaseException):
    """A device is gone at once: nothing catches this on its way out."""


@dataclass(frozen=True, kw_only=True)
class Resident:
    """One person's device, before it is made.

    Attributes
    ----------
    place
        Its number in the swarm, from 0.
    home
        Its folder.
    items
        Keys of what the person has had, oldest first.
    death, lie
        What goes wrong with it.
    """

    place: int
    home: Path
    items: list[str] = field(repr=False)
    death: Death | None = None
    lie: Lie | None = None


class InProcess:
    """A `palate.client.fleet.worker.Trainer` without a process of its own: what the worker computes, here.

    Parameters
    ----------
    catalogue, catalogue_sha256
        As a worker's.
    begins
        Called when the device is charged and about to train.
    made
        Called with what it made, before it is masked.
    """

    def __init__(
        self,
        catalogue: Path,
        catalogue_sha256: str,
        *,
        begins: Callable[[RoundPlan], None],
        made: Callable[[RoundPlan, RingArray], None],
    ) -> None:
        self._catalogue = catalogue
        self._catalogue_sha256 = catalogue_sha256
        self._begins = begins
        self._made = made

    def contribute(self, plan: RoundPlan, history: Sequence[str], head: bytes | None) -> Contribution:
        """Train, clip, round and add noise, as the device's worker does."""
        self._begins(plan)
        asked = question(plan, history, head, self._catalogue, self._catalogue_sha256)
        values, arrays = answer(asked)
        found = contribution_in(replace(asked, values=values, arrays=arrays), plan)
        self._made(plan, found.vector)
        return found

    def use_catalogue(self, sha256: str) -> None:
        """Compute with another catalogue from now on, as a worker does."""
        self._catalogue_sha256 = sha256

    def close(self) -> None:
        """Do nothing: there is no process."""


class VirtualDevice:
    """A device of the swarm.

    Parameters
    ----------
    resident
        Whose it is.
    heartbeat_seconds
        How long the server is told to wait for signs of life; twice that.
    """

    def __init__(self, resident: Resident, *, heartbeat_seconds: float) -> None:
        self.resident = resident
        self.folder = DeviceFolder(resident.home)
        self.name = ""
        self.alive = True
        self.answered: tuple[int, FleetStep] | None = None
        self.lies: list[int] = []
        self.second_replies = 0
        self.second_due = False
        self.died_at = ""
        self._death = resident.death
        self.before: bytes | None = None
        self._pace = Pace(heartbeat_seconds=heartbeat_seconds)
        self._agent: FleetAgent | None = None
        self._handle: Callable[[Message], Message] | None = None
        self._open = ExitStack()

    def request(self) -> bytes:
        """Make the device's folder and keys, and return what it asks to be enrolled with."""
        asked = make_device(self.folder)
        self.name = device_name(EnrolmentRequest.open(asked).device)
        return asked

    def accept(self, welcome: Path, *, smallest: int) -> None:
        """Join the fleet with its welcome, and fill in the person's history."""
        join(self.folder, welcome, self.resident.items, smallest=smallest)

    def turn(self, server_round: int | None = None) -> bool:
        """Ask the server once for a message, and answer it; say whether there was one.

        Parameters
        ----------
        server_round
            The round that is under way.

        Raises
        ------
        Killed
            If the device's time has come.
        FleetError
            If the server does not answer or refuses.
        """
        if self._death is not None and self._death.server_round == server_round and self._pace is not _DYING:
            self._drop()  # to join again, with a promise of more heartbeats
            self._pace = _DYING
        agent = self._agent or self._joining()
        try:
            return agent.turn()
        except Killed:
            self._drop()
            raise
        finally:
            agent.close()

    def rest(self) -> None:
        """Close vault and ledger until the next round: thousands in one process would each keep their pages."""
        self._handle = None
        self._open.close()

    def head(self, run: str) -> bytes | None:
        """Return the head that the device has learned in a run; None where the score model has none."""
        with Vault.open(self.folder.vault) as vault:
            log = RoundLog(vault)
            return log.head(run, log.standing().head_name)

    def _joining(self) -> FleetAgent:
        """Return the agent of a device that was just started.

        Devices of a swarm send no heartbeats between their turns, and promise few. One that dies in this round promises
        the most that the server admits, so that its silence is noticed soon.
        """
        with Member.opened(self.folder) as member:
            welcome, key = member.profile.welcome, member.keys.node
        files.replace(self.folder.authority, welcome.ca_certificate.encode("ascii"))
        self._agent = FleetAgent(
            welcome.address,
            key,
            self._answered,
            authority=self.folder.authority,
            pace=self._pace,
        )
        return self._agent

    def _drop(self) -> None:
        """Drop all that the device has in memory."""
        agent, self._agent = self._agent, None
        self.rest()
        if agent is not None:
            agent.close()

    def _opened(self) -> Callable[[Message], Message]:
        """Open the device as `palate client join` does, unless it is open, and return what answers."""
        if self._handle is not None:
            return self._handle
        member = self._open.enter_context(Member.opened(self.folder))
        member.check_catalogue()
        trainer = InProcess(
            self.folder.catalogue,
            member.profile.welcome.catalogue_sha256,
            begins=lambda plan: self.dies(plan.server_round, Moment.BEFORE_REPORT),
            made=self._note,
        )
        self._handle = relay_to(_Interposed(self, member.rounds(trainer), member))
        return self._handle

    def _note(self, plan: RoundPlan, vector: RingArray) -> None:
        """Keep a vector for `told_vector`, on disk: thousands of devices share the memory of a process."""
        np.save(self._vector_file(plan.server_round), vector)

    def told_vector(self, server_round: int) -> RingArray | None:
        """Tell the swarm alone what this device made in a round, once, to check the sum; None if it made nothing."""
        path = self._vector_file(server_round)
        if not path.exists():
            return None
        vector: RingArray = np.load(path)
        path.unlink()
        return vector

    def _vector_file(self, server_round: int) -> Path:
        return self.resident.home / f"vector-{server_round}.npy"

    def dies(self, server_round: int, moment: Moment) -> None:
        """Raise Killed if this is when the device is to be killed."""
        death = self._death
        if death is not None and (death.server_round, death.moment) == (server_round, moment):
            self._death = None
            self.alive, self.answered, self.died_at = death.returns, None, moment.value
            raise Killed

    def dies_between(self, server_round: int) -> None:
        """Raise Killed if the device is to be killed between its report and the receipt."""
        try:
            self.dies(server_round, Moment.BEFORE_RECEIPT)
        except Killed:
            self._drop()
            raise

    def _answered(self, message: Message) -> Message:
        handle = self._opened()
        reply = handle(message)
        if self.second_due:
            self._send_twice(handle, message, reply)
            self.second_due = False
        return reply

    def _send_twice(self, handle: Callable[[Message], Message], message: Message, reply: Message) -> None:
        """Send the honest reply, and a second, different report right behind it."""
        assert self._agent is not None  # it is at work
        calls = self._agent.calls
        calls.send(calls.pack(message, reply))
        if not calls.send(calls.pack(message, handle(message))):
            self.second_replies += 1


class _Interposed:
    """Stands between the agent and the rounds of a device: kills it there, or makes it lie."""

    def __init__(self, device: VirtualDevice, rounds: SecureRounds, member: Member) -> None:
        self._device = device
        self._rounds = rounds
        self._identity = member.keys.signing

    def handle(
        self, message: FleetMessage, *, plan: RoundPlan | None = None, table: ItemTable | None = None
    ) -> FleetMessage:
        """Answer as the rounds do, unless the device is killed or lies."""
        device, number = self._device, message.server_round
        device.answered = number, message.step
        reply = self._rounds.handle(message, plan=plan, table=table)
        if message.step is not FleetStep.REPORT:
            return reply
        device.dies(number, Moment.BEFORE_SEND)
        lie = device.resident.lie
        if lie is Lie.TWO_REPORTS and not device.second_due:
            device.second_due = True
            return reply
        body = (
            None
            if lie is None
            else forged(reply.body, lie, call=message.body, identity=self._identity, before=device.before)
        )
        device.before = reply.body if lie is Lie.REPLAY else None
        if body is None:
            return reply
        device.lies.append(number)
        return replace(reply, body=body)
