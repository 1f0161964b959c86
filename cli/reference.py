"""References written from the code, so that the two cannot disagree.

docs/cli.md is every command's own --help, docs/configuration.md every setting's own description.
`python -m palate.cli.reference docs` writes both; a test compares the files with fresh ones.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click
import tomli_w

from palate.cli.errors import EXIT_CODES
from palate.cli.main import PROGRAM, LazyCommand, root_command

_WIDTH = 100

_INTRODUCTION = """\
# The command line

Written by `make docs` from each command's `--help`; change the command, not this page.

Results go to stdout; progress and messages to a person go to stderr. With `--json`, stdout holds one JSON value and
nothing else. A failure is one line `error: ...`, usually one line `hint: ...`, and an exit code.
`PALATE_DEBUG=1` adds the traceback.
"""


def reference() -> str:
    """Return docs/cli.md as text: introduction, exit codes, then every command's help, groups before their members."""
    exit_codes = "\n".join(f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items())
    sections = [_INTRODUCTION, f"## Exit codes\n\n| code | meaning |\n|---|---|\n{exit_codes}\n"]
    root = root_command()
    with click.Context(root, info_name=PROGRAM, terminal_width=_WIDTH, **root.context_settings) as context:
        sections += _sections(context)
    return "\n".join(sections)


def _sections(context: click.Context) -> Iterator[str]:
    help_text = "\n".join(line.rstrip() for line in context.command.get_help(context).splitlines())
    yield f"## {context.command_path}\n\n```text\n{help_text}\n```\n"
    if not isinstance(context.command, click.Group):
        return
    for name in context.command.list_commands(context):
        listed = context.command.get_command(context, name)
        command = listed.load() if isinstance(listed, LazyCommand) else listed
        if command is not None and not command.hidden:
            with click.Context(command, parent=context, info_name=name) as child:
                yield from _sections(child)


_SETTINGS = """\
# Configuration

Written by `make docs` from the code; change the code, not this page.

`palate simulate --config FILE` reads these settings from a TOML file, where a dot means a table: `schedule.rounds` is
under `[schedule]`. `--set schedule.rounds=20` sets any of them; the options of `palate simulate` override both. A run
folder holds the whole configuration as it was requested (`config.toml`) and as it was resolved from the data
(`resolved.toml`).

One resolver decides what runs, for the command line, the Python API, `flwr run` and fleets
([ADR 8](adr/0008-one-resolver-of-settings.md)). The columns show the defaults for each unit of protection; an empty
cell has the same value as unit `none`. *Planned* values follow from public numbers: the budget, the devices of a round,
the size of the catalogue and whether it has public columns. `palate plan`, with the options of `palate simulate`,
prints every value of a run with its reason.
"""


def configuration() -> str:
    """Return docs/configuration.md as text: every setting of a simulation with what each unit uses."""
    from palate.server.resolving import AUTO, defaults
    from palate.server.values import fields_of
    from palate.simulation.config import SimulationConfig

    user, interaction, none = (defaults(SimulationConfig, unit) for unit in ("user", "interaction", "none"))
    rows = [
        "| setting | unit user | units interaction and both | unit none | |",
        "|---|---|---|---|---|",
    ]
    for name, field in fields_of(SimulationConfig).items():
        values = [_toml(found[name]) for found in (user, interaction, none)]
        private = ["planned" if name in AUTO else values[0], values[1]]
        shown = [value if value != values[2] else "" for value in private]
        rows.append(f"| `{name}` | {shown[0]} | {shown[1]} | {values[2]} | {field.description or ''} |")
    return "\n".join([_SETTINGS, *rows, ""])


def _toml(value: object) -> str:
    """Return a default as it would stand in a TOML file; an unset one as a dash."""
    text = " ".join(tomli_w.dumps({"x": value}).removeprefix("x = ").split()) if value is not None else ""
    return f"`{text}`" if text else "-"


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (folder / "cli.md").write_text(reference(), encoding="utf-8")
    (folder / "configuration.md").write_text(configuration(), encoding="utf-8")
