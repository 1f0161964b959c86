"""Flower messages in and out of secure rounds: unpack, answer, pack; the one file here that knows Flower.

Errors are reduced to a code and a word, as in `palate.client.app`: texts would reach the server, and may quote private
data. Nothing of the person is ever in a Flower object but the answer's bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from flwr.app import ArrayRecord, ConfigRecord, Error, Message, RecordDict

from palate.client.fleet.rounds import RoundOver
from palate.errors import PalateError
from palate.models.arrays import AnyArray
from palate.models.table import ItemTable
from palate.privacy.secagg.errors import RoundAborted, SecureAggregationError
from palate.privacy.wire import (
    BAD_PLAN,
    FAILED,
    REFUSED,
    ROUND_GONE,
    TAMPERED,
    FleetMessage,
    FleetStep,
    RoundPlan,
    WireError,
    array_of_npy,
)

log = logging.getLogger(__name__)

FLEET, PLAN, TABLE = "fleet", "plan", "table"


class Answering(Protocol):
    """What answers fleet messages: `palate.client.fleet.rounds.SecureRounds`."""

    def handle(self, message: FleetMessage, *, plan: RoundPlan | None, table: ItemTable | None) -> FleetMessage:
        """Answer one step."""


def relay_to(rounds: Answering) -> Callable[[Message], Message]:
    """Return the program that a `FleetAgent` runs: it answers every message with one, and never raises."""

    def handle(message: Message) -> Message:
        try:
            return Message(content=_answer(message, rounds), reply_to=message)
        except WireError as error:
            log.error("not understood: %s", error)
            return Message(Error(code=BAD_PLAN, reason="BadPlan"), reply_to=message)
        # The rounds have noted why; what follows says no more than whose fault it can be.
        except (RoundOver, RoundAborted):
            return Message(Error(code=ROUND_GONE, reason="RoundGone"), reply_to=message)
        except SecureAggregationError:
            return Message(Error(code=TAMPERED, reason="Tampered"), reply_to=message)
        except PalateError:
            return Message(Error(code=REFUSED, reason="Refused"), reply_to=message)
        except Exception as error:
            log.error("a message failed with %s", type(error).__name__)
            return Message(Error(code=FAILED, reason=type(error).__name__), reply_to=message)

    return handle


def _answer(message: Message, rounds: Answering) -> RecordDict:
    if not message.has_content():
        raise WireError("a message without content")
    names = set(message.content)
    fleet = FleetMessage.from_scalars(dict(_config(message, FLEET)))
    expected = {FLEET, PLAN, TABLE} if fleet.step.opens_a_round else {FLEET}
    if names != expected and not (fleet.step is FleetStep.RECEIPT and names == {FLEET, TABLE}):
        raise WireError(f"{fleet.step} holds {sorted(names)}, expected {sorted(expected)}")
    plan = table = None
    if PLAN in names:
        plan = RoundPlan.from_parts(_arrays(message), dict(_config(message, PLAN)))
    elif TABLE in names:
        table = _table(_arrays(message))
    answer = rounds.handle(fleet, plan=plan, table=table)
    return RecordDict({FLEET: ConfigRecord({**answer.to_scalars()})})


def _config(message: Message, name: str) -> ConfigRecord:
    record = message.content.get(name)
    if not isinstance(record, ConfigRecord):
        raise WireError(f"a message without its record {name!r}")
    return record


def _arrays(message: Message) -> dict[str, AnyArray]:
    record = message.content.get(TABLE)
    if not isinstance(record, ArrayRecord):
        raise WireError(f"a message without its record {TABLE!r}")
    return {name: array_of_npy(array.data) for name, array in record.items()}


def _table(arrays: dict[str, AnyArray]) -> ItemTable:
    if set(arrays) != {"fixed", "learned"}:
        raise WireError(f"a table of {sorted(arrays)}, expected fixed and learned")
    try:
        return ItemTable(arrays["fixed"], arrays["learned"])
    except (ValueError, AttributeError) as error:
        raise WireError(str(error)) from error
