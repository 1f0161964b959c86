"""One step of a round with all its devices: ask, wait for stragglers until the deadline, and let nobody hold it up.

A device that is offline is asked when it comes back; the same question gets the same answer, so it may be asked twice.
Whatever a device sends is stored before it is looked at. What is wrong with it is that device's loss alone.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping

from palate.models.table import ItemTable
from palate.privacy.wire import FleetMessage, FleetStep, RoundPlan
from palate.server.fleet.dropouts import GONE, LATE, REFUSED_HERE, REMOVED, UNEXPECTED, words_of
from palate.server.fleet.grid_messages import Answer, GridMessages
from palate.server.fleet.state import FleetState
from palate.server.fleet.watching import Answered, Clock, DeviceFailed, Happening, StepBegun, StepDone, Watcher

POLL_SECONDS = 0.05
_POLL_SECONDS_A_DEVICE = 2e-4

Take = Callable[[FleetStep, str, bytes], None]


def poll_seconds(devices: int) -> float:
    """Return how long to wait between two looks for answers: a look costs time for each device that is waited for."""
    return max(POLL_SECONDS, devices * _POLL_SECONDS_A_DEVICE)


class Interrupted(Exception):
    """The server is to stop now; the round stays open, and goes on when the server starts again."""


class NotTaken(Exception):
    """An answer that a check refuses; the text names the check."""


class Exchange:
    """Carries the steps of one round.

    Parameters
    ----------
    grid_messages, state, clock, watcher
        What it works with.
    nodes
        Where devices are reached, by name.
    run, number
        The round.
    enrolled
        Names the devices that are enrolled now.
    largest_answer
        Bytes that no honest answer exceeds.
    offline_seconds
        How long a step waits for a device that is offline.
    interrupted
        Asked again and again whether the server is to stop now.

    A device that is removed while a step is under way has dropped out: it is not asked, nor waited for, and an answer
    that has not been taken yet is not taken any more.
    """

    def __init__(
        self,
        grid_messages: GridMessages,
        state: FleetState,
        clock: Clock,
        watcher: Watcher,
        *,
        nodes: Mapping[str, int],
        run: str,
        number: int,
        enrolled: Callable[[], Container[str]],
        largest_answer: int,
        offline_seconds: float,
        interrupted: Callable[[], bool],
    ) -> None:
        self._grid_messages = grid_messages
        self._state = state
        self._clock = clock
        self._watcher = watcher
        self._nodes = nodes
        self._run = run
        self._number = number
        self._enrolled = enrolled
        self._largest_answer = largest_answer
        self._offline_seconds = offline_seconds
        self._interrupted = interrupted

    def ask(
        self,
        step: FleetStep,
        bodies: Mapping[str, bytes],
        *,
        seconds: float,
        take: Take,
        plan: RoundPlan | None = None,
        table: ItemTable | None = None,
        patient: Container[str] | None = None,
    ) -> int:
        """Ask devices, and hand each answer over as it comes.

        Parameters
        ----------
        step
            What is asked.
        bodies
            For every device that is asked, what goes to it.
        seconds
            How long stragglers have.
        take
            Called with every answer; raises NotTaken to refuse it.
        plan, table
            What else goes down.
        patient
            Whose answers are waited for; everybody's unless given.

        Returns
        -------
        How many answers were taken.

        Raises
        ------
        Interrupted
            If the server is to stop now.
        """
        begun = self._clock.now()
        unsent = dict.fromkeys((device for device in bodies if device in self._nodes), begun)  # offline since then
        waiting: dict[str, str] = {}
        taken = 0
        self._watcher(StepBegun(self._number, step, len(bodies), seconds))
        for unknown in bodies.keys() - unsent.keys() if patient is None else ():
            self.fail(step, unknown, REMOVED)
        while any(patient is None or device in patient for device in (*unsent, *waiting.values())):
            if self._interrupted():
                raise Interrupted
            left = begun + seconds - self._clock.now()
            if left <= 0:
                break
            self._drop_removed(step, unsent, waiting, note=patient is None)
            waiting |= self._send(step, unsent, bodies, left, plan, table)
            self._give_up_offline(step, unsent)
            for answer in self._grid_messages.collect(waiting):
                device = waiting.pop(answer.message_id, None)
                if device is None:
                    continue
                if answer.code == GONE:
                    unsent[device] = self._clock.now()
                elif self._took(step, device, answer, take):
                    taken += 1
            if unsent or waiting:  # else the step is over; a look after each answer would cost devices squared
                self._clock.sleep(poll_seconds(len(bodies)))
        for device in (*unsent, *waiting.values()) if patient is None else ():
            self.fail(step, device, LATE)
        self._watcher(StepDone(self._number, step, taken, len(bodies), self._clock.now() - begun))
        return taken

    def fail(self, step: FleetStep, device: str, code: int, why: str = "") -> None:
        """Note that a device has dropped out; `why` names a check, where there is more to say than the code does."""
        self._state.failed(self._number, device, code)
        self._watcher(DeviceFailed(self._number, step, device, why or words_of(code)))

    def tell(self, happening: Happening) -> None:
        """Tell those who watch."""
        self._watcher(happening)

    def pause(self, seconds: float) -> None:
        """Let time pass; raises Interrupted if the server is to stop now."""
        if self._interrupted():
            raise Interrupted
        self._clock.sleep(seconds)

    def _send(
        self,
        step: FleetStep,
        unsent: dict[str, float],
        bodies: Mapping[str, bytes],
        left: float,
        plan: RoundPlan | None,
        table: ItemTable | None,
    ) -> dict[str, str]:
        """Send to those who are online, and take them off `unsent`; devices by the names of their messages."""
        online = self._grid_messages.online() if unsent else set()
        ready = {self._nodes[device]: device for device in unsent if self._nodes[device] in online}
        if not ready:
            return {}
        messages: dict[int, FleetMessage] = {}
        message: FleetMessage | None = None
        for node, device in ready.items():
            if message is None or message.body is not bodies[device]:  # one for all who are sent the same
                message = FleetMessage(step=step, run=self._run, server_round=self._number, body=bodies[device])
            messages[node] = message
        # Counted before anything leaves: a crash in between counts what was not sent, never the other way round.
        self._state.sent(self._number, [(device, len(bodies[device])) for device in ready.values()])
        sent = self._grid_messages.send(messages, within_seconds=left, plan=plan, table=table)
        for node in sent.values():
            unsent.pop(ready[node], None)
        return {name: ready[node] for name, node in sent.items()}

    def _give_up_offline(self, step: FleetStep, unsent: dict[str, float]) -> None:
        """Wait no longer for devices that have been offline for long enough."""
        latest = self._clock.now() - self._offline_seconds
        for device in [device for device, since in unsent.items() if since <= latest]:
            del unsent[device]
            self.fail(step, device, GONE)

    def _drop_removed(self, step: FleetStep, unsent: dict[str, float], waiting: dict[str, str], *, note: bool) -> None:
        """Wait no longer for devices that the operator has removed meanwhile."""
        enrolled = self._enrolled()
        gone = [device for device in (*unsent, *waiting.values()) if device not in enrolled]
        for device in gone:
            unsent.pop(device, None)
            if note:
                self.fail(step, device, REMOVED)
        for name in [name for name, device in waiting.items() if device in gone]:
            del waiting[name]

    def _took(self, step: FleetStep, device: str, answer: Answer, take: Take) -> bool:
        message, code, why = answer.message, answer.code, ""
        if message is not None:
            if (message.step, message.run, message.server_round) != (step, self._run, self._number):
                code = UNEXPECTED
            elif len(message.body) > self._largest_answer:
                code, why = UNEXPECTED, f"an answer of {len(message.body)} bytes"
            else:
                try:
                    take(step, device, message.body)
                except NotTaken as refusal:
                    code, why = REFUSED_HERE, str(refusal)
                else:
                    self._watcher(Answered(self._number, step, device))
                    return True
        self.fail(step, device, code, why)
        return False
