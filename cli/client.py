"""`palate client`: a person's own device, and what it takes part in. Each command with its example."""

from __future__ import annotations

from collections.abc import Callable

import typer

from palate.cli.client_fleet import compare, enrol, import_, init, join, leave, limits, pause, status
from palate.cli.client_owner import (
    add,
    budget,
    dislike,
    export,
    forget,
    hide,
    history,
    like,
    mute,
    page,
    pin,
    profile,
    recommend,
    remove,
    search,
    undo,
    unpin,
)
from palate.cli.client_try import try_

client_app = typer.Typer(
    help="Take part in a fleet with this device, and see what is sent and spent.", no_args_is_help=True
)

_COMMANDS: dict[Callable[..., None], str] = {
    init: "init",
    enrol: "enrol --welcome welcome.zip",
    import_: "import ratings.csv",
    join: "join",
    compare: "compare spellbind unravel transit yucatan gremlin infancy crumpled burlington seabird escapade",
    leave: "leave --yes",
    limits: "limits --epsilon 4 --smallest-cohort 50",
    pause: "pause",
    status: "status --json",
    recommend: 'recommend "something lighter from the 90s like Heat" --explain',
    add: 'add "Heat (1995)" --liked',
    like: 'like "Heat (1995)"',
    dislike: 'dislike "Heat (1995)"',
    hide: 'hide "Heat (1995)"',
    remove: 'remove "Heat (1995)"',
    undo: "undo",
    history: "history --n 0",
    search: "search heat",
    profile: "profile",
    pin: "pin crime",
    mute: "mute 1950s",
    unpin: "unpin crime",
    budget: "budget --epsilon 4",
    export: "export mine.json",
    forget: "forget --yes",
    page: "page --no-browser",
    try_: "try",
}
"""Every command, in the order of the help, with an example of its arguments."""

for _command, _example in _COMMANDS.items():
    client_app.command(_command.__name__.rstrip("_"), epilog=f"Example: palate client {_example}")(_command)
