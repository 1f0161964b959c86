"""Faults of the system, one at a time: a call that touches a folder fails with ENOSPC, EIO, EMFILE or ENOMEM.

`Faults` counts the calls with which the code opens, writes, syncs, renames and removes files under one folder, the
statements that it gives SQLite for files there, and, where it is asked to, `accept` and `connect` of sockets. A first
run that nothing fails in says which calls there are; each further run lets one of them fail, once. SQLite does its own
calls in C, so here its statement fails, with the error that SQLite makes of such a call.
"""

from __future__ import annotations

import errno
import io
import os
import re
import socket
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

ERRORS = {
    "open": (errno.EMFILE, errno.ENOMEM, errno.EIO, errno.ENOSPC),
    "write": (errno.ENOSPC, errno.EIO),
    "sync": (errno.EIO, errno.ENOSPC),
    "rename": (errno.ENOSPC, errno.EIO),
    "remove": (errno.EIO,),
    "connect database": (errno.EMFILE, errno.ENOMEM),
    "statement": (errno.ENOSPC, errno.EIO, errno.ENOMEM),
    "commit": (errno.ENOSPC, errno.EIO),
    "query": (errno.EIO,),
    "accept": (errno.EMFILE, errno.ENOMEM),
    "connect": (errno.EMFILE, errno.ENOMEM),
}
"""What each kind of call may fail with."""

_SQLITE = {
    errno.ENOSPC: sqlite3.OperationalError("database or disk is full"),
    errno.EIO: sqlite3.OperationalError("disk I/O error"),
    errno.EMFILE: sqlite3.OperationalError("unable to open database file"),
}
_CHANGING = ("BEGIN", "INSERT", "UPDATE", "DELETE", "REPLACE", "CREATE", "PRAGMA")


@dataclass(frozen=True)
class Call:
    """One call of the system: its kind, and the file's name without the digits that differ between runs."""

    kind: str
    name: str


class Faults:
    """Counts calls, and lets the one of a number fail.

    Attributes
    ----------
    calls
        What was called since `begin`, in order.
    fails
        Number of the call that fails, and its errno; None lets all succeed.
    hit
        Whether it has failed.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.root = Path("/nowhere")
        self.counting = False
        self.fails: tuple[int, int] | None = None
        self.sockets = False
        self.hit = False

    def begin(self, root: Path, fails: tuple[int, int] | None = None, *, sockets: bool = False) -> None:
        """Count calls under a folder from now on."""
        self.calls, self.root, self.fails, self.sockets = [], root.resolve(), fails, sockets
        self.counting, self.hit = True, False

    def end(self) -> None:
        """Let everything succeed, and count no more."""
        self.counting = False

    def points(self) -> list[tuple[int, int]]:
        """Return every call that was counted with every errno that it may fail with."""
        return [(number, code) for number, call in enumerate(self.calls) for code in ERRORS[call.kind]]

    def pass_by(self, kind: str, where: Any) -> None:
        """Take note of a call that is about to be made, and raise OSError where it is to fail."""
        code = self._failing(kind, where)
        if code is not None:
            raise OSError(code, os.strerror(code), str(where))

    def pass_statement(self, kind: str, where: Any) -> None:
        """Do the same for SQLite, in its words."""
        code = self._failing(kind, where)
        if code == errno.ENOMEM:
            raise MemoryError
        if code is not None:
            raise _SQLITE[code]

    def _failing(self, kind: str, where: Any) -> int | None:
        if not self.counting or not self._is_ours(where):
            return None
        number = len(self.calls)
        self.calls.append(Call(kind, _plain(where)))
        if self.fails is None or self.fails[0] != number:
            return None
        self.hit = True
        return self.fails[1]

    def _is_ours(self, where: Any) -> bool:
        if isinstance(where, socket.socket):
            return self.sockets
        try:
            return Path(os.fsdecode(where)).absolute().is_relative_to(self.root)
        except (TypeError, ValueError):
            return False


def _plain(where: Any) -> str:
    if isinstance(where, socket.socket):
        return "socket"
    return re.sub(r"[0-9a-f]{16,}|[0-9]+", "#", Path(os.fsdecode(where)).name)


class _File:
    """A file whose writes may fail."""

    def __init__(self, file: Any, where: Any, faults: Faults) -> None:
        self._file, self._where, self._faults = file, where, faults

    def write(self, data: Any) -> Any:
        self._faults.pass_by("write", self._where)
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        self._file.__enter__()
        return self

    def __exit__(self, *what: Any) -> Any:
        return self._file.__exit__(*what)

    def __iter__(self) -> Any:
        return iter(self._file)


def _connection_kind(faults: Faults, where: str) -> type[sqlite3.Connection]:
    class Connection(sqlite3.Connection):
        def execute(self, statement: str, *arguments: Any) -> sqlite3.Cursor:
            word = statement.lstrip().partition(" ")[0].upper()
            if word == "COMMIT":
                faults.pass_statement("commit", where)
            elif word in _CHANGING:
                faults.pass_statement("statement", where)
            elif word == "SELECT":
                faults.pass_statement("query", where)
            return super().execute(statement, *arguments)

        def executemany(self, statement: str, *arguments: Any) -> sqlite3.Cursor:
            faults.pass_statement("statement", where)
            return super().executemany(statement, *arguments)

    return Connection


def patched(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """Return calls of the system that may fail, for as long as the monkeypatch lasts."""
    made = Faults()
    of_descriptor: dict[int, Any] = {}

    def on_path(kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **named: Any) -> Any:
            made.pass_by(kind, path)
            return real(path, *arguments, **named)

        return call

    def on_descriptor(kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(descriptor: Any, *arguments: Any) -> Any:
            made.pass_by(kind, of_descriptor.get(descriptor if isinstance(descriptor, int) else descriptor.fileno()))
            return real(descriptor, *arguments)

        return call

    real_open, real_io_open, real_fdopen = os.open, io.open, os.fdopen
    real_connect, real_close = sqlite3.connect, os.close

    def opening(path: Any, flags: int, *arguments: Any, **named: Any) -> int:
        made.pass_by("open", path)
        descriptor = real_open(path, flags, *arguments, **named)
        of_descriptor[descriptor] = path
        return descriptor

    def closing(descriptor: int) -> None:
        of_descriptor.pop(descriptor, None)
        real_close(descriptor)

    def io_opening(path: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        if isinstance(path, int):
            return real_io_open(path, mode, *arguments, **named)
        made.pass_by("open", path)
        file = real_io_open(path, mode, *arguments, **named)
        of_descriptor[file.fileno()] = path
        return _File(file, path, made) if mode.strip("bt") != "r" else file

    def fdopening(descriptor: int, *arguments: Any, **named: Any) -> Any:
        return _File(real_fdopen(descriptor, *arguments, **named), of_descriptor.get(descriptor), made)

    def connecting(database: Any, *arguments: Any, **named: Any) -> sqlite3.Connection:
        where = str(database)
        where = unquote(urlsplit(where).path) if where.startswith("file:") else where
        made.pass_statement("connect database", where)
        return real_connect(database, *arguments, **named, factory=_connection_kind(made, where))

    def on_socket(kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(this: socket.socket, *arguments: Any) -> Any:
            made.pass_by(kind, this)
            return real(this, *arguments)

        return call

    for owner, name, call in (
        (os, "open", opening),
        (os, "close", closing),
        (io, "open", io_opening),
        (os, "fdopen", fdopening),
        (os, "mkdir", on_path("open", os.mkdir)),
        (os, "replace", on_path("rename", os.replace)),
        (os, "rename", on_path("rename", os.rename)),
        (os, "link", on_path("rename", os.link)),
        (os, "unlink", on_path("remove", os.unlink)),
        (os, "fsync", on_descriptor("sync", os.fsync)),
        (os, "fdatasync", on_descriptor("sync", os.fdatasync)),
        (os, "pwrite", on_descriptor("write", os.pwrite)),
        (os, "ftruncate", on_descriptor("write", os.ftruncate)),
        (sqlite3, "connect", connecting),
        (socket.socket, "accept", on_socket("accept", socket.socket.accept)),
        (socket.socket, "connect", on_socket("connect", socket.socket.connect)),
    ):
        monkeypatch.setattr(owner, name, call)
    return made
