"""Options that commands share: one word for the folder."""

from __future__ import annotations

import click

from palate.cli.main import root_command


def _commands(group: click.Group):
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        loaded = command.load() if hasattr(command, "load") else command
        if isinstance(loaded, click.Group):
            yield from _commands(loaded)
        else:
            yield loaded


def test_every_command_that_takes_a_folder_calls_it_so_and_nothing_else():
    spellings = {
        name
        for command in _commands(root_command())
        for option in command.params
        for name in option.opts
        if "--folder" in option.opts or name in {"--run-dir", "--home", "--dir", "--out"}
    }
    assert spellings == {"--folder"}
