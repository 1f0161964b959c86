"""The worker: local training, clipping, rounding and noise in a process of its own.

PyTorch and Opacus take some hundred megabytes, which a device should not hold while it waits for rounds. The agent
starts this program when a round needs it, talks to it over a socket that is the worker's standard input, and the
worker ends when it has been idle, when the socket closes, or when its parent dies. Nothing secret is in its arguments
or its environment; it draws the secrets of its randomness itself.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import numpy as np

from palate.client.fleet.folder import NEW_WELCOME
from palate.client.fleet.frames import ChannelBroken, Frame, receive, send
from palate.data.catalogue import Catalogue
from palate.models.arrays import AnyArray
from palate.privacy.wire import RoundPlan

_PARENT_CHECK_SECONDS = 1.0


def answer(frame: Frame) -> tuple[dict[str, Any], dict[str, AnyArray]]:
    """Compute what leaves the device in one round, and the head that stays.

    Parameters
    ----------
    frame
        Values `plan` (its scalars), `history` (item keys, oldest first), `catalogue` (path) and `catalogue_sha256`;
        arrays `fixed`, `learned`, and `head` where there is one.

    Returns
    -------
    values, arrays
        `failed`, the name of an error's type or ""; `vector`, noise included whatever failed, and `head` if there is
        one now.
    """
    import torch

    from palate.client.host import DeviceHost, training_of
    from palate.client.vault.heads import pack_head, unpack_head
    from palate.models.scores.base import Shape

    arrays = {name: frame.arrays[name] for name in ("fixed", "learned")}
    plan = RoundPlan.from_parts(arrays, cast("dict[str, object]", frame.values["plan"]))
    if plan.terms is None:
        raise ValueError("a plan without terms")
    failed = ""
    try:
        catalogue = Catalogue.from_parquet(_unaltered(frame), num_items=len(plan.learned), hint=NEW_WELCOME)
        items = catalogue.rows_of(frame.values["history"])
    except Exception as error:  # a round that is charged is answered with noise, whatever is wrong with its data
        items, failed = np.zeros(0, dtype=np.int32), type(error).__name__
    held_back = int(items[-1]) if plan.asks_for_metrics and len(items) > 1 else None
    host = DeviceHost(
        items if held_back is None else items[:-1],
        lambda _: np.frombuffer(os.urandom(8), dtype=np.uint64)[0],
        held_back=held_back,
    )
    config = training_of(plan)
    shape = Shape(fixed_dim=plan.fixed.shape[1], dim=plan.learned.shape[1], hidden=config.hidden)
    try:
        head = unpack_head(frame.arrays["head"].tobytes(), config, shape) if "head" in frame.arrays else None
        if head is not None:
            host.keep(plan, {name: torch.from_numpy(value.copy()) for name, value in head.items()})
    except Exception as error:  # the round begins from the public starting point
        failed = failed or type(error).__name__
    vector, state = host.release(plan, plan.terms)
    made: dict[str, AnyArray] = {"vector": vector}
    try:
        if state is not None and not failed:
            trained = {name: value.numpy() for name, value in state.items()}
            made["head"] = np.frombuffer(pack_head(config, shape, trained), dtype=np.uint8)
    except Exception as error:  # a head that diverged is not kept
        failed = type(error).__name__
    return {"failed": failed}, made


def serve(channel: socket.socket, *, idle_seconds: float) -> None:
    """Answer frames until the channel closes or nothing came for a while."""
    while True:
        try:
            frame = receive(channel, until=time.monotonic() + idle_seconds)
        except ChannelBroken:
            return
        values, arrays = answer(frame)
        with contextlib.suppress(ChannelBroken):
            send(channel, values, arrays, until=None)


def main() -> None:
    """Serve the agent: ``python -P -m palate.client.fleet.worker_process PARENT_PID IDLE_SECONDS``."""
    parent, idle_seconds = int(sys.argv[1]), float(sys.argv[2])
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    with socket.socket(fileno=os.dup(0)) as channel:
        serve(channel, idle_seconds=idle_seconds)


def _unaltered(frame: Frame) -> bytes:
    data = Path(frame.values["catalogue"]).read_bytes()
    if sha256(data).hexdigest() != frame.values["catalogue_sha256"]:
        raise ValueError("another catalogue")
    return data


def _end_with(parent: int) -> None:
    """End when the agent has died, also by SIGKILL and in the middle of a long computation."""
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main()
