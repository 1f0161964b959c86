"""The device's own log: for its owner's eyes, kept small, and without anything of the history."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

from palate.errors import EnvironmentProblem

MAX_LOG_BYTES = 1 << 20


class _Private(RotatingFileHandler):
    """Opens every file of the log for its owner only."""

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        return os.fdopen(descriptor, "a", encoding="utf-8")


class _Teller(logging.Handler):
    """Passes warnings on, without their traces."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(record.getMessage().partition("\n")[0])


@contextmanager
def logged_to(path: Path, tell: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Write what `palate` logs to a file, two files of 1 MiB at most.

    Parameters
    ----------
    path
        The file.
    tell
        Also called with the words of every warning, such as that the server does not answer.

    Raises
    ------
    EnvironmentProblem
        If the file cannot be written.
    """
    try:
        handler = _Private(path, maxBytes=MAX_LOG_BYTES, backupCount=1)
    except OSError as error:
        raise EnvironmentProblem(f"{path} cannot be written: {error.strerror}", hint="check the folder") from None
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    teller = _Teller(tell)
    logger = logging.getLogger("palate")
    before = logger.level
    logger.addHandler(handler)
    logger.addHandler(teller)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)
        logger.removeHandler(teller)
        handler.close()
