"""Options that commands share: one word for the folder, its former spellings taken and not shown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from palate.cli.options import folder_option


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer()

    @made.command()
    def show(folder: Annotated[Path, folder_option("Folder of the run.", "--run-dir")] = Path("here")) -> None:
        typer.echo(folder)

    return made


@pytest.mark.parametrize("spelling", ["--folder", "--run-dir"])
def test_a_former_spelling_of_the_folder_works_as_the_present_one(app, spelling):
    assert CliRunner().invoke(app, [spelling, "there"]).output == "there\n"


def test_help_lists_the_present_spelling_alone(app):
    text = CliRunner().invoke(app, ["--help"]).output
    assert ("--folder" in text, "--run-dir" in text) == (True, False)


def test_a_spelling_that_no_command_ever_had_is_refused():
    with pytest.raises(ValueError, match="--place"):
        folder_option("Folder.", "--place")
