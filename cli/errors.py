"""How the command ends: every failure becomes `error:`, `hint:` and an exit code from one table.

A person sees one line that says what is wrong and one that says what to do next, never a traceback. `PALATE_DEBUG=1`
adds the traceback for those who want it. The codes 130 and 141 are the shell's 128 + SIGINT and 128 + SIGPIPE;
70 is EX_SOFTWARE of sysexits.h.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import sys
import traceback

import click

from palate.errors import ConfigError, EnvironmentProblem, PalateError, RunError

INTERNAL = 70
INTERRUPTED = 130
READER_GONE = 141

EXIT_CODES: dict[int, str] = {
    0: "done",
    1: "a record of privacy spending was tampered with, or records contradict each other",
    2: "the command line or a configuration cannot be used",
    3: "a privacy budget is exceeded, or would be",
    4: "privacy accountants disagree, or a claim does not follow from the record",
    5: "a round was charged and has no recorded outcome",
    6: "a record was rolled back or forked: it is not the one that an anchor saw",
    7: "an attack on the mechanism found more than was claimed",
    8: "a fleet has stopped by itself because too many rounds in a row were lost; palate server resume continues it",
    9: "a fleet has removed this device",
    10: "the data cannot be read, or holds nothing to learn from",
    11: "the run folder is missing, damaged, locked or of another catalogue",
    12: "the machine prevents it: no write access, disk full, missing optional package, no network",
    13: "the federation failed: too few nodes answered, the round was not applied",
    14: "the vault is missing, in use, damaged, or has another key",
    INTERNAL: "a defect in palate",
    INTERRUPTED: "interrupted",
    READER_GONE: "the reader of the output went away",
}

# Packages of an extra, so that their absence is a step to take and not a defect.
EXTRA_OF = {"matplotlib": "report", "ray": "ray", "tokenizers": "text"}

_REFUSALS: dict[int, str] = {
    errno.EACCES: "choose a place that you may read and write, or change its permissions",
    errno.EPERM: "choose a place that you may read and write, or change its permissions",
    errno.EROFS: "choose a folder on a file system that is not read-only",
    errno.ENOSPC: "free some disk space, or choose another folder",
    errno.EDQUOT: "free some of your disk quota, or choose another folder",
    errno.ENOMEM: "close other programs, or use a machine with more memory",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close other programs: the system has no file handles left",
    errno.EIO: "check the disk: reading or writing failed below the file system",
    errno.ENOENT: "check the path: a part of it does not exist",
    errno.ENOTDIR: "a part of the path is a file; choose a folder",
    errno.EISDIR: "the path is a folder; name a file",
    errno.EEXIST: "a file is in the way; choose another path",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.ELOOP: "the path's symbolic links go in a circle; choose another path",
    errno.EADDRINUSE: "another program listens there; choose another port",
}


class _Interrupted(PalateError):
    """The person stopped the command."""

    exit_code = INTERRUPTED


class _ReaderGone(PalateError):
    """Nobody reads the output; nothing is said."""

    exit_code = READER_GONE


class _Defect(PalateError):
    """An error that nobody foresaw."""

    exit_code = INTERNAL


def ending_of(error: BaseException, *, command_path: str = "palate") -> PalateError:
    """Turn what stopped a command into what to say and how to exit.

    Parameters
    ----------
    error
        What was raised.
    command_path
        The program's name, for hints about its help.

    Returns
    -------
    PalateError
        Always with an exit code of `EXIT_CODES`; an empty message says nothing.
    """
    if isinstance(error, PalateError):
        return error
    if isinstance(error, click.ClickException):
        return _usage_ending(error, command_path)
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        usual = "run the same command again; a run goes on after its last finished round"
        return _Interrupted("interrupted", hint=str(error) or usual)
    if isinstance(error, BrokenPipeError):
        return _ReaderGone("")
    return _environment_ending(error) or _Defect(
        f"internal: {type(error).__name__}: {error}",
        hint="this is a defect in palate; run again with PALATE_DEBUG=1 and report the traceback",
    )


def show(ending: PalateError, error: BaseException | None = None) -> None:
    """Write an ending to stderr: coloured on a terminal, plain elsewhere, one line each.

    Parameters
    ----------
    ending
        What to say.
    error
        Its cause; its traceback is written first when the environment has PALATE_DEBUG=1.
    """
    from rich.console import Console
    from rich.text import Text

    if error is not None and os.environ.get("PALATE_DEBUG", "0") not in {"", "0"}:
        traceback.print_exception(error, file=sys.stderr)
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    for label, style, line in (("error", "bold red", ending.message), ("hint", "bold cyan", ending.hint)):
        if line:
            console.print(Text.assemble((f"{label}:", style), " ", _one_line(line)))


def _usage_ending(error: click.ClickException, command_path: str) -> PalateError:
    context = error.ctx if isinstance(error, click.UsageError) else None
    help_hint = f"see {context.command_path if context else command_path} --help"
    possibilities = list(getattr(error, "possibilities", None) or ())
    if not possibilities:
        return ConfigError(_as_clause(error.format_message()), hint=help_hint)
    # Click's own sentence repeats the suggestions; they belong in the hint.
    return ConfigError(_as_clause(error.message), hint=f"did you mean {' or '.join(possibilities)}? {help_hint}")


def _environment_ending(error: BaseException) -> PalateError | None:
    if isinstance(error, MemoryError):
        return EnvironmentProblem(
            "the machine has no memory left", hint="use smaller data, or a machine with more memory"
        )
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        if package in EXTRA_OF:
            hint = f"pip install 'palate[{EXTRA_OF[package]}]'"
            return EnvironmentProblem(f"this needs the package {package}, not installed", hint=hint)
    if isinstance(error, sqlite3.DatabaseError):
        return _database_ending(error)
    if isinstance(error, (ConnectionError, TimeoutError)):
        return EnvironmentProblem(f"the network refuses: {error}", hint="check the connection and try again")
    if isinstance(error, OSError) and error.errno in _REFUSALS:
        where = f"{error.filename}: " if error.filename is not None else ""
        hint = _REFUSALS[error.errno]
        return EnvironmentProblem(f"{where}{_as_clause(error.strerror or str(error))}", hint=hint)
    return None


def _database_ending(error: sqlite3.DatabaseError) -> PalateError:
    if isinstance(error, sqlite3.OperationalError):
        return EnvironmentProblem(
            f"a database cannot be used: {error}", hint="free some disk space, or check the disk; then try again"
        )
    return RunError(f"a database is damaged: {error}", hint="restore it from a backup")


def _as_clause(sentence: str) -> str:
    """Make Click's and the system's sentences read like ours: no capital, no full stop."""
    sentence = sentence.strip().removesuffix(".")
    starts_a_word = len(sentence) > 1 and sentence[0].isupper() and sentence[1].islower()
    return sentence[0].lower() + sentence[1:] if starts_a_word else sentence


def _one_line(text: str) -> str:
    """Join lines and neutralise control characters: a message may quote a file that nobody has checked."""
    joined = " ".join(text.split())
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in joined)
