"""The command reference: docs/cli.md is every command's own --help, so the two cannot disagree.

`python -m palate.cli.reference docs/cli.md` writes it; a test compares the file with a fresh one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from palate.cli.errors import EXIT_CODES
from palate.cli.main import PROGRAM, LazyCommand, root_command

_WIDTH = 100

_INTRODUCTION = """\
# The command line

Written by `make docs` from each command's `--help`; change the command, not this page.

Results go to stdout; progress and everything said to a person go to stderr. With `--json`, stdout holds one JSON
value and nothing else. A failure is one line `error: ...`, usually one line `hint: ...`, and an exit code.
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
    for name, listed in context.command.commands.items():
        command = listed.load() if isinstance(listed, LazyCommand) else listed
        if not command.hidden:
            with click.Context(command, parent=context, info_name=name) as child:
                yield from _sections(child)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
