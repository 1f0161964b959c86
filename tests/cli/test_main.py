"""The command line as a person or a program meets it: run as a process, judged by stdout, stderr and exit code.

Failures are made by probe commands that are mounted next to the real ones.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from palate.cli.errors import EXIT_CODES
from palate.cli.main import COMMANDS

PROBES = '''
import errno, os, signal, subprocess, sys
from typing import Annotated
import typer
from palate.errors import DataError

def quiet() -> None:
    typer.echo("[1, 2]")

def rounds(rounds: Annotated[int, typer.Option("--rounds")]) -> None:
    typer.echo(rounds)

def noisy() -> None:
    os.write(1, b"from a C library\\n")
    subprocess.run(["echo", "from a child"], check=True)
    typer.echo('{"answer": 1}')

def refuses() -> None:
    raise DataError("12 rows are malformed,\\n3 are allowed [bold]\\x1b[31m", hint="mend them")

def disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/demo")

def extra() -> None:
    raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib.figure")

def defect() -> None:
    raise ZeroDivisionError("secret plan")

def interrupted() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()

def declined() -> None:
    typer.confirm("Agree?", abort=True)

def chatty() -> None:
    for number in range(100_000):
        typer.echo(number)

def seven() -> None:
    raise typer.Exit(7)

group = typer.Typer(no_args_is_help=True)

@group.command()
def describe() -> None:
    """Describe one."""

@group.command("list")
def list_() -> None:
    """List all."""
'''
LAUNCHER = """
import os, sys
from palate.cli.main import COMMANDS, Entry, main
probes = "quiet rounds noisy refuses disk extra defect interrupted declined chatty seven group"
COMMANDS.update({name: Entry(f"probes:{name}", "A probe.") for name in probes.split()})
COMMANDS["absent"] = Entry("probes_that_do_not_exist:absent", "A probe.")
code = main(sys.argv[1:])
if os.environ.get("LIST_MODULES"):
    print("\\n".join(sys.modules))
sys.exit(code)
"""


@dataclass(frozen=True)
class Outcome:
    code: int
    stdout: str
    stderr: str


class Shell:
    """Runs `palate` in a folder of its own, with the probes mounted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "probes.py").write_text(PROBES)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-c", LAUNCHER, *arguments]

    def environment(self, **extra: str) -> dict[str, str]:
        plain = {name: value for name, value in os.environ.items() if name not in {"PALATE_DEBUG", "FORCE_COLOR"}}
        return {**plain, "PYTHONPATH": str(self.folder), **extra}

    def __call__(self, *arguments: str, stdin: str = "", **extra: str) -> Outcome:
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(**extra),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def palate(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_help_names_every_command_and_every_exit_code(palate: Shell):
    shown = palate("--help")
    assert shown.code == 0
    assert shown.stderr == ""
    words = shown.stdout.split()
    assert set(COMMANDS) <= set(words)
    assert {str(code) for code in EXIT_CODES} <= set(words)


def test_help_imports_nothing_heavy(palate: Shell):
    modules = set(palate("--help", LIST_MODULES="1").stdout.splitlines())
    assert "palate.cli.main" in modules
    heavy = {"torch", "flwr", "polars", "numpy", "scipy", "pydantic", "matplotlib", "rich", "palate.simulation"}
    assert not heavy & modules


def test_no_arguments_show_the_help_as_a_usage_problem(palate: Shell):
    shown = palate()
    assert shown.code == 2
    assert shown.stdout == ""
    assert shown.stderr.startswith("Usage: palate")


def test_version_says_palate_python_and_extras(palate: Shell):
    import platform
    from importlib.metadata import version

    shown = palate("--version")
    assert (shown.code, shown.stderr) == (0, "")
    first, python, extras = shown.stdout.splitlines()
    assert first == f"palate {version('palate')}"
    assert python == f"Python {platform.python_version()}"
    assert "report yes" in extras  # the tests need it


def test_a_result_goes_to_stdout_and_nothing_to_stderr(palate: Shell):
    assert palate("quiet") == Outcome(0, "[1, 2]\n", "")


def test_a_command_may_choose_its_exit_code(palate: Shell):
    assert palate("seven") == Outcome(7, "", "")


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (["simulat"], "no such command 'simulat'", "did you mean simulate? see palate --help"),
        (["zzz"], "no such command 'zzz'", "see palate --help"),
        (["--versio"], "no such option '--versio'", "did you mean --version? see palate --help"),
        (["rounds", "--round", "3"], "no such option '--round'", "did you mean --rounds? see palate rounds --help"),
        (["rounds"], "missing option '--rounds'", "see palate rounds --help"),
        (
            ["rounds", "--rounds", "x"],
            "invalid value for '--rounds': 'x' is not a valid integer",
            "see palate rounds --help",
        ),
        (["group", "descibe"], "no such command 'descibe'", "did you mean describe? see palate group --help"),
        (["quiet", "more"], "got unexpected extra argument (more)", "see palate quiet --help"),
    ],
)
def test_a_usage_error_is_two_lines_and_exit_code_2(palate: Shell, arguments: list[str], error: str, hint: str):
    assert palate(*arguments) == Outcome(2, "", f"error: {error}\nhint: {hint}\n")


def test_an_error_for_people_is_printed_on_one_line_without_control_characters_or_markup(palate: Shell):
    said = "error: 12 rows are malformed, 3 are allowed [bold]\N{REPLACEMENT CHARACTER}[31m\nhint: mend them\n"
    assert palate("refuses") == Outcome(10, "", said)


def test_a_full_disk_is_a_problem_of_the_machine(palate: Shell):
    shown = palate("disk")
    assert shown.code == 12
    assert shown.stderr.startswith("error: runs/demo: no space left on device\nhint: free some disk space")


def test_a_missing_optional_package_names_its_extra(palate: Shell):
    shown = palate("extra")
    assert shown.code == 12
    assert "matplotlib" in shown.stderr
    assert "hint: pip install 'palate[report]'" in shown.stderr


def test_a_defect_is_one_line_and_a_way_to_the_traceback(palate: Shell):
    shown = palate("defect")
    assert (shown.code, shown.stdout) == (70, "")
    assert shown.stderr.startswith("error: internal: ZeroDivisionError: secret plan\nhint: ")
    assert "PALATE_DEBUG=1" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_debug_adds_the_traceback(palate: Shell):
    shown = palate("defect", PALATE_DEBUG="1")
    assert shown.code == 70
    assert "Traceback" in shown.stderr
    assert "probes.py" in shown.stderr


def test_a_command_whose_module_is_missing_fails_alone(palate: Shell):
    shown = palate("absent")
    assert shown.code == 70
    assert shown.stderr.startswith("error: internal: ModuleNotFoundError: ")
    assert palate("quiet").code == 0


def test_an_interrupt_is_quiet_and_exits_with_130(palate: Shell):
    shown = palate("interrupted")
    assert (shown.code, shown.stdout) == (130, "")
    assert shown.stderr.startswith("error: interrupted\nhint: ")
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize("answer", ["n\n", ""])
def test_a_declined_or_unanswered_question_stops_the_command(palate: Shell, answer: str):
    shown = palate("declined", stdin=answer)
    assert shown.code == 130
    assert "Traceback" not in shown.stderr


def test_a_reader_that_goes_away_is_not_an_error_message(palate: Shell):
    with subprocess.Popen(
        palate.command("chatty"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=palate.environment()
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


def test_native_code_and_child_processes_cannot_write_into_the_result(palate: Shell):
    shown = palate("noisy")
    assert shown.stdout == '{"answer": 1}\n'
    assert shown.stderr == "from a C library\nfrom a child\n"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_of_the_table_explains_itself(palate: Shell, name: str):
    shown = palate(name, "--help")
    assert shown.code == 0, shown.stderr
    assert shown.stdout.startswith(f"Usage: palate {name}")
