"""Every way to fail has a documented exit code and words that a person can act on."""

from __future__ import annotations

import errno

import click
import pytest

from palate.cli.errors import EXIT_CODES, ending_of
from palate.models import errors
from palate.models.errors import PalateError

FAMILY = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, PalateError)]


@pytest.mark.parametrize("kind", [kind for kind in FAMILY if kind is not PalateError])
def test_every_error_of_the_family_has_a_documented_exit_code(kind: type[PalateError]):
    ending = ending_of(kind("epsilon is -1, must be above 0", hint="choose 8"))
    assert ending.exit_code in EXIT_CODES
    assert (ending.message, ending.hint) == ("epsilon is -1, must be above 0", "choose 8")


def test_errors_of_the_family_have_exit_codes_of_their_own():
    codes = [kind.exit_code for kind in FAMILY]
    assert len(codes) == len(set(codes)) >= 6


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EACCES, "Permission denied", "/runs"),
        OSError(errno.EROFS, "Read-only file system", "/runs"),
        NotADirectoryError(errno.ENOTDIR, "Not a directory", "/runs"),
        ConnectionRefusedError("Connection refused"),
        TimeoutError("timed out"),
        MemoryError(),
        ModuleNotFoundError("No module named 'ray'", name="ray"),
    ],
)
def test_what_the_machine_refuses_is_no_defect(error: BaseException):
    ending = ending_of(error)
    assert ending.exit_code == 12
    assert ending.message
    assert ending.hint


@pytest.mark.parametrize(
    "error",
    [RuntimeError("x"), OSError("no number"), ModuleNotFoundError("No module named 'palate.x'", name="palate.x")],
)
def test_what_nobody_foresaw_is_reported_as_a_defect(error: BaseException):
    ending = ending_of(error)
    assert ending.exit_code == 70
    assert type(error).__name__ in ending.message


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interrupt_has_the_shells_code(error: BaseException):
    assert ending_of(error).exit_code == 130


def test_a_closed_pipe_says_nothing():
    ending = ending_of(BrokenPipeError())
    assert (ending.message, ending.hint) == ("", "")
    assert ending.exit_code in EXIT_CODES
