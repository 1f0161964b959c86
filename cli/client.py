"""`palate client`: a person's own device, and what it takes part in. Each command with its example."""

from __future__ import annotations

from typing import ClassVar

import typer

from palate.cli.main import LazyGroup


class _ClientCommands(LazyGroup):
    """Every command, in the order of the help."""

    path: ClassVar[str] = "palate client"
    sources: ClassVar[dict[str, tuple[str, str]]] = {
        "init": ("palate.cli.client_fleet:init", "init"),
        "enrol": ("palate.cli.client_fleet:enrol", "enrol --welcome welcome.zip"),
        "import": ("palate.cli.client_fleet:import_", "import ratings.csv"),
        "join": ("palate.cli.client_fleet:join", "join"),
        "compare": (
            "palate.cli.client_fleet:compare",
            "compare spellbind unravel transit yucatan gremlin infancy crumpled burlington seabird escapade",
        ),
        "leave": ("palate.cli.client_fleet:leave", "leave --yes"),
        "limits": ("palate.cli.client_fleet:limits", "limits --epsilon 4 --smallest-cohort 50"),
        "pause": ("palate.cli.client_fleet:pause", "pause"),
        "status": ("palate.cli.client_fleet:status", "status --json"),
        "recommend": (
            "palate.cli.client_owner:recommend",
            'recommend "something lighter from the 90s like Heat" --explain',
        ),
        "add": ("palate.cli.client_owner:add", 'add "Heat (1995)" --liked'),
        "like": ("palate.cli.client_owner:like", 'like "Heat (1995)"'),
        "dislike": ("palate.cli.client_owner:dislike", 'dislike "Heat (1995)"'),
        "hide": ("palate.cli.client_owner:hide", 'hide "Heat (1995)"'),
        "remove": ("palate.cli.client_owner:remove", 'remove "Heat (1995)"'),
        "undo": ("palate.cli.client_owner:undo", "undo"),
        "history": ("palate.cli.client_owner:history", "history --n 0"),
        "search": ("palate.cli.client_owner:search", "search heat"),
        "profile": ("palate.cli.client_owner:profile", "profile"),
        "pin": ("palate.cli.client_owner:pin", "pin crime"),
        "mute": ("palate.cli.client_owner:mute", "mute 1950s"),
        "unpin": ("palate.cli.client_owner:unpin", "unpin crime"),
        "budget": ("palate.cli.client_owner:budget", "budget --epsilon 4"),
        "export": ("palate.cli.client_owner:export", "export mine.json"),
        "forget": ("palate.cli.client_owner:forget", "forget --yes"),
        "page": ("palate.cli.client_owner:page", "page --no-browser"),
        "try": ("palate.cli.client_try:try_", "try"),
    }


client_app = typer.Typer(cls=_ClientCommands, no_args_is_help=True)


@client_app.callback()
def client() -> None:
    """Take part in a fleet with this device, and see what is sent and spent."""
