"""Options that many commands share, and how an option shows in `--help`.

One word for the folder that a command works in: `--folder`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import click
import typer
from typer.core import TyperCommand, TyperGroup

from palate.errors import ConfigError

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
ExplainOption = Annotated[bool, typer.Option("--explain", help="Also say what epsilon is about, and when it holds.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show errors only, and the result.")]

LONGEST_LIST = 500
"""Most items of a list. Choosing the diversity compares all pairs of a list, at each step of the control."""


def folder_option(help: str, *, envvar: str | None = None, show_default: bool | str = False) -> Any:
    """Return the option `--folder` of a command, for use in an `Annotated` type.

    Parameters
    ----------
    help
        What lies in the folder.
    envvar
        Environment variable that names the folder where the option does not.
    show_default
        As of `typer.Option`.
    """
    return typer.Option(
        "--folder",
        envvar=envvar,
        show_envvar=envvar is not None,
        help=help,
        show_default=show_default,
        metavar="FOLDER",
    )


def listen_on(listen: str | None) -> tuple[str | None, int | None]:
    """Read host and port of `--listen`; None for both where it was not given.

    Raises
    ------
    ConfigError
        If it is not host:port.
    """
    if listen is None:
        return None, None
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"--listen {listen} is not host:port", hint="for example --listen 0.0.0.0:9092")
    return host.strip("[]"), int(port)


def print_json(value: object) -> None:
    """Print a value on stdout, on one line for programs; raises ValueError for a number that JSON does not have."""
    indent = 2 if sys.stdout.isatty() else None
    typer.echo(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent))


class _Argument(typer.core.TyperArgument):
    """Shows its help: Typer 0.20 loses it to Click 8.5, whose arguments have a help and a section of their own."""

    def __init__(self, *, help: str | None = None, **more: Any) -> None:
        super().__init__(**more)
        self._words = help

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:  # type: ignore[override]  # as Typer's
        found = super().get_help_record(ctx)
        return None if found is None else (found[0], "  ".join(filter(None, (self._words, found[1]))))


vars(typer.main).update(TyperArgument=_Argument)

# Help is plain text here; where rich is installed, Typer would escape defaults for an HTML export all the same.
typer.core.HAS_RICH = False


def make_plain(command: click.Command) -> None:
    """Plain help reads the same in a terminal, in a pipe and in docs/cli.md; suggestions belong in the hint."""
    if isinstance(command, TyperCommand | TyperGroup):
        command.rich_markup_mode = None
    if isinstance(command, TyperGroup):
        command.suggest_commands = False
    if command.help:  # Click fills the lines of a paragraph, unless it begins with a \b
        command.help = command.help.replace("\n\nFor example:\n", "\n\n\b\nFor example:\n")
    # Wrapped and whole, where Click would cut it to one line.
    command.short_help = command.short_help or (command.help or "").partition("\n\n")[0]
    if isinstance(command, click.Group):
        for child in command.commands.values():
            make_plain(child)


class PanelCommand(TyperCommand):
    """Lists its options under the headings of their panels, its own last."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, a section a panel."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                panels.setdefault(getattr(parameter, "rich_help_panel", None) or "Options", []).append(record)
        for title in sorted(panels, key="Options".__eq__):
            with formatter.section(title):
                formatter.write_dl(panels[title])


_MOST_BYTES = 1 << 30
"""Of a file that another party hands over; a helper's question about a million devices has a third of it."""


def read_given(path: Path) -> bytes:
    """Read a file that another party handed over; raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", hint="check the path") from error
    if len(data) > _MOST_BYTES:
        raise ConfigError(f"{path} has more than {_MOST_BYTES:,} bytes", hint="is it the file that you were given?")
    return data
