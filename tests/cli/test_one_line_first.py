"""Every command says epsilon in one line: with delta, unit and window. What that is about is behind `--explain`."""

from __future__ import annotations

import ast
import re
import time

import click
import pytest
from click.testing import CliRunner

from palate.cli.main import root_command
from palate.cli.server_demo import spent_lines
from palate.simulation.fleet_demo import folders, running

PARAGRAPH = ("amplification is claimed", "It holds if", "it holds if")
WINDOW = re.compile("for all rounds( of the run)? together")
SHOWN = ("cli", "client/fleet", "simulation/device_demo")
"""Where text for people at a terminal is made."""


def ancestors(tree: ast.AST, node: ast.AST):
    parents = {child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}
    while node in parents:
        node = parents[node]
        yield node


def asked_for(tree: ast.AST, node: ast.AST) -> bool:
    """Whether a value is shown where somebody asks for it alone, or is for programs."""
    for each in ancestors(tree, node):
        if isinstance(each, ast.If | ast.IfExp) and "explain" in ast.unparse(each.test):
            return True
        if isinstance(each, ast.Dict | ast.keyword):
            return isinstance(each, ast.Dict) or each.arg == "explained"
        if isinstance(each, ast.FunctionDef):
            before = [inner for inner in each.body if isinstance(inner, ast.If) and inner.lineno < node.lineno]
            return any(ast.unparse(inner.test) == "not explain" for inner in before)
    return False


def test_no_command_makes_the_paragraph_unless_it_is_asked_for(request):
    root, found = request.config.rootpath, 0
    for path in (path for folder in SHOWN for path in (root / folder).glob("*.py")):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr == "words":
                of = ast.unparse(node.value)
                if of.endswith(("promise", "allowed")) or "Promise(" in of:
                    found += 1
                    assert asked_for(tree, node), f"{path.name}, line {node.lineno}"
    assert found > 5


def commands(group: click.Group, path: str = ""):
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        loaded = command.load() if hasattr(command, "load") else command
        if isinstance(loaded, click.Group):
            yield from commands(loaded, f"{path}{name} ")
        else:
            yield path + name, loaded


SHOWS_EPSILON = {
    *(f"client {name}" for name in ("init", "enrol", "join", "status", "limits", "try")),
    *(f"server {name}" for name in ("start", "resume", "status", "rounds", "demo", "swarm")),
    "simulate",
    "plan",
}


def test_every_command_that_shows_epsilon_can_explain_it():
    able = {
        path for path, command in commands(root_command()) if any("--explain" in each.opts for each in command.params)
    }
    assert able >= SHOWS_EPSILON


def said_of(*words: str) -> str:
    done = CliRunner().invoke(root_command(), words)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    root = tmp_path_factory.mktemp("fleet")
    return folders.build(root, *folders.choose(4, 1), rounds=2, epsilon=8.0, smallest=2)


def require_short(said: str) -> None:
    assert not any(words in said for words in PARAGRAPH)


def test_a_device_its_limits_and_a_server_say_one_line_and_the_rest_when_asked(demo):
    device, fleet = str(next(iter(demo.devices.values())).home), str(demo.fleet.root)
    for command, folder, window in (
        (("client", "status"), device, True),
        (("client", "limits"), device, False),
        (("server", "status"), fleet, True),
    ):
        said = said_of(*command, "--folder", folder)
        require_short(said)
        assert not window or any(
            "epsilon" in line and "delta" in line and "user" in line and "all" in line for line in said.splitlines()
        )
        assert any(words in said_of(*command, "--folder", folder, "--explain") for words in PARAGRAPH)
        assert "amplification" in said_of(*command, "--folder", folder, "--json")


def test_a_server_that_starts_and_a_device_that_joins_say_one_line(demo):
    home = next(iter(demo.devices.values())).home
    server = running.start_server(demo)
    try:
        running.await_server(server, running.EventTail(demo.fleet.events))
        device = running.Program((*running.PALATE, "client", "join", "--folder", str(home)), demo.logs / "device.log")
        try:
            end = time.monotonic() + 60
            while "epsilon" not in device.log.read_text() and time.monotonic() < end:
                time.sleep(0.1)
        finally:
            device.stop()
    finally:
        server.stop()
    for program in (server, device):
        said = program.log.read_text()
        require_short(said)
        assert "at delta 1e-05 per user, " in said
        assert WINDOW.search(said)


def test_a_plan_says_one_line():
    require_short(said_of("plan"))
    assert WINDOW.search(said_of("plan"))
    assert any(words in said_of("plan", "--explain") for words in PARAGRAPH)


def test_a_demonstration_says_what_was_spent_in_one_line():
    found = {"epsilon_spent": 1.0, "epsilon_budget": 8.0, "delta": 1e-5, "unit": "user", "words": "it holds if"}
    (line,) = spent_lines(found, explain=False)
    assert line == "epsilon 1.000 of 8 spent at delta 1e-05 per user, for all rounds together"
    assert list(spent_lines(found, explain=True)) == [line, "it holds if"]
