"""Frames between a device's agent and its worker: a JSON header and raw arrays behind it, never pickles.

``u32 header size | header | array | array ...``, little-endian; the header names every array with its type and shape,
and both are checked before anything is allocated.
"""

from __future__ import annotations

import json
import math
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from palate.models.arrays import AnyArray

MAX_HEADER_BYTES = 1 << 26
MAX_ARRAY_BYTES = 1 << 31
_TYPES = {"float32", "uint32", "uint64", "uint8"}
_CHUNK = 1 << 20


class PipeBroken(ConnectionError):
    """The other side is gone, too slow, or says what is not a frame."""


@dataclass(frozen=True)
class Frame:
    """One message.

    Attributes
    ----------
    values
        JSON values by name.
    arrays
        Arrays by name.
    """

    values: dict[str, Any] = field(repr=False)
    arrays: dict[str, AnyArray] = field(repr=False)


def send(
    channel: socket.socket, values: Mapping[str, Any], arrays: Mapping[str, AnyArray], *, until: float | None
) -> None:
    """Send a frame.

    Parameters
    ----------
    channel
        Connected socket.
    until
        `time.monotonic()` by which all of it must be taken; None for no limit.

    Raises
    ------
    PipeBroken
        If the other side is gone or too slow.
    """
    listed = [(name, str(array.dtype), list(array.shape)) for name, array in arrays.items()]
    header = json.dumps({"values": dict(values), "arrays": listed}).encode()
    try:
        channel.settimeout(_left(until))
        channel.sendall(len(header).to_bytes(4, "little") + header)
        for array in arrays.values():
            channel.settimeout(_left(until))
            channel.sendall(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    except OSError as error:
        raise PipeBroken(f"sending failed: {type(error).__name__}") from None


def receive(channel: socket.socket, *, until: float | None) -> Frame:
    """Wait for a frame.

    Raises
    ------
    PipeBroken
        If the other side is gone or too slow, or what comes is no frame.
    """
    size = int.from_bytes(_exactly(channel, 4, until), "little")
    if size > MAX_HEADER_BYTES:
        raise PipeBroken(f"a header of {size} bytes")
    try:
        header = json.loads(_exactly(channel, size, until))
        listed = [(str(name), str(kind), tuple(int(n) for n in shape)) for name, kind, shape in header["arrays"]]
        values = dict(header["values"])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise PipeBroken("a header that cannot be read") from None
    arrays = {}
    for name, kind, shape in listed:
        if kind not in _TYPES or min(shape, default=0) < 0:
            raise PipeBroken(f"an array of type {kind} and shape {shape}")
        dtype = np.dtype(kind)
        if math.prod(shape) * dtype.itemsize > MAX_ARRAY_BYTES:
            raise PipeBroken(f"an array of shape {shape}")
        raw = _exactly(channel, math.prod(shape) * dtype.itemsize, until)
        arrays[name] = np.frombuffer(raw, dtype=dtype).reshape(shape)
    return Frame(values, arrays)


def _exactly(channel: socket.socket, size: int, until: float | None) -> bytearray:
    data = bytearray()
    while len(data) < size:
        try:
            channel.settimeout(_left(until))
            chunk = channel.recv(min(size - len(data), _CHUNK))
        except OSError as error:
            raise PipeBroken(f"receiving failed: {type(error).__name__}") from None
        if not chunk:
            raise PipeBroken("the other side is gone")
        data += chunk
    return data


def _left(until: float | None) -> float | None:
    return None if until is None else max(until - time.monotonic(), 1e-3)
