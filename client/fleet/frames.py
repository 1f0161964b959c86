"""Frames between a device's agent and its worker: safetensors on a socket, never pickles.

``u64 size | safetensors``, little-endian: arrays by name, and JSON values in the metadata.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from palate.models.arrays import AnyArray

MAX_FRAME_BYTES = 1 << 31
_SIZE_BYTES = 8
_CHUNK = 1 << 20


class ChannelBroken(ConnectionError):
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
    ChannelBroken
        If the other side is gone or too slow.
    """
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    data = save(whole, {"values": json.dumps(dict(values))})
    try:
        channel.settimeout(_left(until))
        channel.sendall(len(data).to_bytes(_SIZE_BYTES, "little") + data)
    except OSError as error:
        raise ChannelBroken(f"sending failed: {type(error).__name__}") from None


def receive(channel: socket.socket, *, until: float | None) -> Frame:
    """Wait for a frame.

    Raises
    ------
    ChannelBroken
        If the other side is gone or too slow, or what comes is no frame.
    """
    size = int.from_bytes(_exactly(channel, _SIZE_BYTES, until), "little")
    if size > MAX_FRAME_BYTES:
        raise ChannelBroken(f"a frame of {size} bytes")
    data = bytes(_exactly(channel, size, until))
    try:
        arrays = load(data)
        header = json.loads(data[_SIZE_BYTES : _SIZE_BYTES + int.from_bytes(data[:_SIZE_BYTES], "little")])
        return Frame(dict(json.loads(header["__metadata__"]["values"])), arrays)
    except (SafetensorError, ValueError, TypeError, KeyError, RecursionError):
        raise ChannelBroken("what is no frame") from None


def _exactly(channel: socket.socket, size: int, until: float | None) -> bytearray:
    data = bytearray()
    while len(data) < size:
        try:
            channel.settimeout(_left(until))
            chunk = channel.recv(min(size - len(data), _CHUNK))
        except OSError as error:
            raise ChannelBroken(f"receiving failed: {type(error).__name__}") from None
        if not chunk:
            raise ChannelBroken("the other side is gone")
        data += chunk
    return data


def _left(until: float | None) -> float | None:
    return None if until is None else max(until - time.monotonic(), 1e-3)
