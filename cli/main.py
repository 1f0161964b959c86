"""The `palate` command: a static table of sub-commands, each imported only when it is called.

The table is what keeps `palate --help` fast: listing commands must not import torch, polars or Flower. Results go to
stdout; talk, progress and errors go to stderr (`palate.cli.errors`).
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, NamedTuple

import click
import typer
from click.exceptions import Exit, NoArgsIsHelpError
from typer.core import TyperGroup

from palate.cli.errors import EXIT_CODES, EXTRA_OF, ending_of, show
from palate.cli.options import PanelCommand, make_plain

PROGRAM = "palate"

# Nodes run in threads and are the parallelism. Threads inside a small product would only wait for each other, actively:
# on two busy cores a round took a hundred times as long. Read once, when numpy and torch are first imported.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

# Pydantic would look for plugins in every installed package, for a tenth of a second at each start. A plugin would also
# see what a person's own device validates.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


class Entry(NamedTuple):
    """Where a command is, as `module:attribute` of a function or a Typer app, and its line in `palate --help`."""

    target: str
    help: str


COMMANDS: dict[str, Entry] = {
    "simulate": Entry(
        "palate.cli.simulate:simulate",
        "Train a federated recommender on virtual devices and measure what it is worth.",
    ),
    "plan": Entry("palate.cli.plan:plan", "Show what would run and why; or plan a privacy budget without data."),
    "runs": Entry("palate.cli.run:runs", "List all runs: data, privacy, quality, gain and cost."),
    "report": Entry("palate.cli.run:report", "Write a run's report as one self-contained HTML page."),
    "compare": Entry("palate.cli.run:compare", "Compare runs with paired significance tests."),
    "recommend": Entry("palate.cli.run:recommend", "Show what a run recommends to one user, by title."),
    "data": Entry("palate.cli.data:data_app", "List, get and describe datasets."),
    "audit": Entry("palate.cli.audit:audit_app", "Check what a run promised and spent, and its record."),
    "frontier": Entry("palate.cli.frontier:frontier", "Measure accuracy at several privacy budgets, and plot it."),
    "server": Entry("palate.cli.server:server_app", "Run a fleet of real devices."),
    "helper": Entry("palate.cli.helper:helper_app", "Help a fleet's server to add up what devices send, unseen."),
    "authority": Entry(
        "palate.cli.authority:authority_app", "Admit devices to a fleet: keys, certificates, invitations."
    ),
    "client": Entry(
        "palate.cli.client:client_app",
        "Your own device: recommendations, feedback, privacy, and the fleet that it belongs to.",
    ),
}


class LazyCommand(click.Command):
    """A command with its name and help; imports the real command when it is called."""

    def __init__(self, name: str, entry: Entry) -> None:
        super().__init__(name, short_help=entry.help)
        self.entry = entry

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Return the real command's context; Click invokes the command that the context names."""
        return self.load().make_context(info_name, args, parent, **extra)

    def load(self) -> click.Command:
        """Import the real command: with plain help (no boxes) and errors left to `palate.cli.errors`."""
        module, _, attribute = self.entry.target.partition(":")
        found = getattr(importlib.import_module(module), attribute)
        if isinstance(found, typer.Typer):
            command: click.Command = typer.main.get_group(found)
            command.name = self.name
        else:
            single = typer.Typer(add_completion=False)
            single.command(self.name, cls=PanelCommand)(found)
            command = typer.main.get_command(single)
        make_plain(command)
        return command


class LazyGroup(TyperGroup):
    """A group whose commands are imported one by one, when they are called or listed.

    A person's own list should not wait for what a fleet needs.

    Attributes
    ----------
    path
        How the group is called, "palate client".
    sources
        By name, in the order of the help: the command as `module:function`, and an example of its arguments.
    """

    path: ClassVar[str] = PROGRAM

    sources: ClassVar[dict[str, tuple[str, str]]] = {}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # Click's signature
        """Return the names."""
        return list(self.sources)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # Click's
        """Import a command."""
        if cmd_name in self.sources and cmd_name not in self.commands:
            target, example = self.sources[cmd_name]
            module, _, function = target.partition(":")
            single = typer.Typer(add_completion=False)
            epilog = f"Example: {self.path} {example}"
            single.command(cmd_name, epilog=epilog)(getattr(importlib.import_module(module), function))
            command = typer.main.get_command(single)
            make_plain(command)
            self.commands[cmd_name] = command
        return self.commands.get(cmd_name)


def _exit_code_lines() -> str:
    # The \b keeps Click from filling the lines into one paragraph.
    return "\b\nExit codes:\n" + "\n".join(f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES.items())


app = typer.Typer(
    name=PROGRAM,
    add_completion=False,
    no_args_is_help=True,
    suggest_commands=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
    epilog=_exit_code_lines(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _show_version(value: bool) -> None:
    if value:
        import platform
        from importlib.metadata import version
        from importlib.util import find_spec

        typer.echo(f"{PROGRAM} {version(PROGRAM)}")
        typer.echo(f"Python {platform.python_version()}")
        extras = {extra: find_spec(package) is not None for package, extra in EXTRA_OF.items()}
        typer.echo("extras: " + ", ".join(f"{name} {'yes' if here else 'no'}" for name, here in sorted(extras.items())))
        raise typer.Exit


@app.callback()
def palate(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version, Python and extras, and exit."
        ),
    ] = False,
) -> None:
    """Private taste, shared knowledge: a federated recommender in which taste stays on the device.

    Start with: palate simulate --data demo
    """


def root_command() -> click.Group:
    """Return the `palate` command with its commands mounted, none of them imported."""
    root = typer.main.get_group(app)
    for name, entry in COMMANDS.items():
        root.add_command(LazyCommand(name, entry))
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `palate`; every failure ends in an `error:` line on stderr and a code of `EXIT_CODES`.

    Parameters
    ----------
    arguments
        Without the program's name; the process's own when None.

    Returns
    -------
    int
        The exit code.
    """
    try:
        with _stdout_for_results():
            return _run(list(sys.argv[1:] if arguments is None else arguments))
    except (Exception, KeyboardInterrupt) as error:
        ending = ending_of(error, command_path=PROGRAM)
        show(ending, error)
        return ending.exit_code


def _run(arguments: list[str]) -> int:
    # Not `Command.main`: it would catch interrupts and broken pipes before the one table of exit codes sees them.
    try:
        with root_command().make_context(PROGRAM, arguments) as ctx:
            ctx.command.invoke(ctx)
    except Exit as request:
        return request.exit_code
    except NoArgsIsHelpError as request:
        click.echo(request.format_message(), err=True)
        return request.exit_code
    return 0


@contextmanager
def _stdout_for_results() -> Iterator[None]:
    """Send what native code and child processes write to file descriptor 1 to stderr.

    `--json` promises one object on stdout and nothing else; a worker process or a C library that prints would break
    that behind Python's back. Only this process's own `sys.stdout` still reaches the reader.
    """
    if not _owns_standard_streams():
        yield
        return
    ours = sys.stdout
    ours.flush()
    results = os.fdopen(os.dup(1), "w", encoding=ours.encoding, errors=ours.errors)
    os.dup2(2, 1)
    sys.stdout = results
    try:
        yield
    finally:
        sys.stdout = ours
        os.dup2(results.fileno(), 1)
        results.close()


def _owns_standard_streams() -> bool:
    """Tell whether stdout and stderr are the process's own: neither closed nor replaced by a surrounding program."""
    try:
        return (sys.stdout.fileno(), sys.stderr.fileno()) == (1, 2)
    except (AttributeError, OSError, ValueError):
        return False


if __name__ == "__main__":
    sys.exit(main())
