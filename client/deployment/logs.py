"""The device's own log: for its owner's eyes, kept small, and without anything of the history."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path

from palate.models.errors import EnvironmentProblem

MAX_LOG_BYTES = 1 << 20


class _Private(RotatingFileHandler):
    """Opens every file of the log for its owner only."""

    def _open(self):  # type: ignore[no-untyped-def]  # noqa: ANN202  # the standard library leaves it so
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        return os.fdopen(descriptor, "a", encoding="utf-8")


@contextmanager
def logged_to(path: Path) -> Iterator[None]:
    """Write what `palate` logs to a file, two files of 1 MiB at most.

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
    logger = logging.getLogger("palate")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)
        handler.close()
