"""The Flower ClientApp: unpack the plan, let the host answer, pack the update.

Errors are reduced to a code and the name of their type: texts would reach the server, and may quote private data.
Data and state live in the host, never in Flower's Context.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points

from flwr.app import Array, ArrayRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from palate.client.host import Arrays, Host
from palate.errors import ConfigError
from palate.models.arrays import AnyArray
from palate.privacy.wire import BAD_PLAN, FAILED, RoundPlan, WireError, array_of_npy

log = logging.getLogger(__name__)

OpenHost = Callable[[Context], Host]


def make_app(open_host: OpenHost) -> ClientApp:
    """Build a ClientApp whose nodes are answered for by `open_host(context)`."""
    client_app = ClientApp()

    @client_app.train()
    def train(message: Message, context: Context) -> Message:
        return relay(message, lambda: _answer(message, open_host(context)))

    @client_app.query()
    def query(message: Message, context: Context) -> Message:
        return relay(message, lambda: _inspect(message, open_host(context)))

    return client_app


def relay(message: Message, work: Callable[[], RecordDict]) -> Message:
    """Reply with the work's result, or with a code and at most the name of the error's type, never its text."""
    try:
        return Message(content=work(), reply_to=message)
    except WireError as error:
        log.error("refused: %s", error)
        return Message(Error(code=BAD_PLAN, reason="the plan was not understood"), reply_to=message)
    except Exception as error:
        log.error("round failed on this node", exc_info=True)
        return Message(Error(code=FAILED, reason=type(error).__name__), reply_to=message)


def _answer(message: Message, host: Host) -> RecordDict:
    plan = RoundPlan.from_parts(_table_of(message), dict(message.content.config_records["plan"]))
    return RecordDict({"update": _record(host.answer(plan).to_parts())})


def _inspect(message: Message, host: Host) -> RecordDict:
    question = {
        name: value
        for name, value in message.content.config_records["question"].items()
        if isinstance(value, str | int)
    }
    return RecordDict({"answer": _record(host.inspect(question, _table_of(message)))})


def _record(arrays: Mapping[str, AnyArray]) -> ArrayRecord:
    return ArrayRecord({name: Array(value) for name, value in arrays.items()})


def _table_of(message: Message) -> Arrays:
    return {name: array_of_npy(array.data) for name, array in message.content.array_records["table"].items()}


def open_installed_host(context: Context) -> Host:
    """Open the host that the run config names; raises ConfigError for an unknown one."""
    name = str(context.run_config.get("session", "simulation"))
    known = {entry.name: entry for entry in entry_points(group="palate.device_hosts")}
    if name not in known:
        raise ConfigError(f"unknown host {name!r}", hint=f"installed: {', '.join(sorted(known))}")
    host: Host = known[name].load()(context.run_config, context.node_config)
    return host


app = make_app(open_installed_host)
