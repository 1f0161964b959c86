"""What commands show to people: the answer on stdout, talk, questions and progress on stderr.

rich is imported only where a table, a colour or a bar is drawn, for the commands of a device have to be quick.
"""

from __future__ import annotations

import functools
import inspect
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import typer

from palate.cli.options import JsonOption, print_json
from palate.errors import ConfigError

if TYPE_CHECKING:
    from rich.progress import Progress

    from palate.simulation.report.tables import Grid

Line: TypeAlias = "str | tuple[str, str] | Grid"
"""A line, a line with a style of rich, or a table."""

_TONES = {"": "", "good": "green", "bad": "bold red", "unknown": "yellow"}
_NUMERIC = frozenset("0123456789+-±<\N{MINUS SIGN}\N{EN DASH}")
_QUIET_SECONDS = 2.0


def say(text: str = "", *, style: str = "") -> None:
    """Print a line of the answer on stdout."""
    _line(text, style, err=False)


def note(text: str, *, style: str = "") -> None:
    """Print a line for the person at the keyboard on stderr."""
    _line(text, style, err=True)


@dataclass(frozen=True)
class Answer:
    """What a command found.

    Attributes
    ----------
    values
        For programs, as JSON.
    lines
        For people: lines, lines with a style, and tables.
    notes
        For people on stderr, before the lines.
    closing
        For people on stderr, after the lines.
    check
        Called once all is printed; raises what the command ends with.
    """

    values: object
    lines: Iterable[Line]
    notes: Iterable[str] = ()
    closing: Iterable[str] = ()
    check: Callable[[], None] = lambda: None


def answering(command: Callable[..., Answer]) -> Callable[..., None]:
    """Give a command that returns its `Answer` the option `--json`, and print what was asked for.

    A command that must know of `--json`, to be quiet, has the parameter `as_json` itself.
    """
    signature = inspect.signature(command, eval_str=True)
    parameters = dict(signature.parameters)
    knows = "as_json" in parameters
    chosen = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=JsonOption)

    @functools.wraps(command)
    def run(*, as_json: bool, **given: object) -> None:
        answer = command(**given, **({"as_json": as_json} if knows else {}))
        if as_json:
            print_json(answer.values)
        else:
            for text in answer.notes:
                note(text)
            for line in answer.lines:
                _print(line)
            for text in answer.closing:
                note(text)
        answer.check()

    parameters["as_json"] = chosen
    vars(run)["__signature__"] = signature.replace(parameters=list(parameters.values()), return_annotation=None)
    vars(run)["__annotations__"] = {}
    return run


def somebody_is_there() -> bool:
    """Whether a person can answer a question."""
    return sys.stdin.isatty()


def confirm(question: str, *, nobody: str, hint: str, before: str = "") -> None:
    """Ask the person at the keyboard to agree.

    Parameters
    ----------
    question
        Answered with yes or no; no is the default.
    nobody, hint
        What to say where nobody can answer, and what to do then.
    before
        What the person must know first.

    Raises
    ------
    ConfigError
        If they do not agree, or nobody is there.
    """
    if not somebody_is_there():
        raise ConfigError(nobody, hint=hint)
    if before:
        note(before)
    if not typer.confirm(question, default=False, err=True):
        raise ConfigError("you did not agree; nothing was changed", hint=hint)


def _print(line: Line) -> None:
    if isinstance(line, str):
        say(line)
    elif isinstance(line, tuple):
        say(line[0], style=line[1])
    else:
        _print_grid(line)


def _line(text: str, style: str, *, err: bool) -> None:
    if not style:
        typer.echo(text, err=err)
        return
    from rich.console import Console

    Console(stderr=err).print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def _print_grid(grid: Grid) -> None:
    """Print a table with its caption and notes: numbers to the right, verdicts in colour, this run's row in bold.

    Whatever it quotes is text, never markup.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if grid.caption:
        console.print(f"\n{grid.caption}", style="bold", highlight=False, markup=False)
    table = Table(*map(escape, grid.columns), box=None, pad_edge=False, show_header=any(grid.columns))
    for place, column in enumerate(table.columns):
        texts = [row.label if place == 0 else row.cells[place - 1].text for row in grid.rows]
        if place and all(text[:1] in _NUMERIC for text in texts if text):
            column.justify = "right"
    for row in grid.rows:
        cells = (Text(cell.text, style=_TONES[cell.tone]) for cell in row.cells)
        table.add_row(Text(row.label), *cells, style="bold" if row.own else "")
    if grid.rows:
        console.print(table, highlight=False)
    for text in grid.notes:
        console.print(text, style="dim", highlight=False, markup=False)


def watched(what: str, total: int) -> tuple[Progress, Callable[[int], None]]:
    """Return a bar on stderr with the time left, and the function that moves it; it appears after two seconds.

    Parameters
    ----------
    what
        What is counted, such as "attacking round".
    total
        How many there are.
    """
    from rich.console import Console

    from palate.simulation.progress import bar_on

    bar = bar_on(Console(stderr=True))
    task, began = bar.add_task(what, total=total), time.monotonic()

    def done(count: int) -> None:
        bar.update(task, completed=count)
        if not bar.live.is_started and time.monotonic() - began > _QUIET_SECONDS:
            bar.start()

    return bar, done
