"""The Flower ServerApp: rounds of one run on whatever grid it is given.

`make_app` builds it for a coordinator and observers that are already there (simulations). `app` is what `flwr run`
starts: it finds its session through the entry point group "palate.server_sessions", by the run config's `session`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from typing import Protocol

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from palate.errors import ConfigError
from palate.server.coordinator import Coordinator
from palate.server.strategy import RoundObserver, run_rounds


class Session(Protocol):
    """One run, ready to start: its coordinator and those who watch it."""

    @property
    def coordinator(self) -> Coordinator:
        """The run's state machine."""
        ...

    @property
    def observers(self) -> Iterable[RoundObserver]:
        """Observers of every round."""
        ...

    def finish(self, grid: Grid) -> None:
        """Conclude after the last round."""
        ...


def make_app(session: Session) -> ServerApp:
    """Build the ServerApp of a session."""
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        del context
        run_session(session, grid)

    return server_app


def run_session(session: Session, grid: Grid) -> None:
    """Run the rounds that are left, then conclude."""
    run_rounds(session.coordinator, grid, session.observers)
    session.finish(grid)


def open_session(run_config: Mapping[str, bool | float | int | str]) -> Session:
    """Find and open the session that the run config names; raises ConfigError for an unknown one."""
    name = str(run_config.get("session", "simulation"))
    known = {entry.name: entry for entry in entry_points(group="palate.server_sessions")}
    if name not in known:
        raise ConfigError(f"unknown session {name!r}", hint=f"set session to one of {', '.join(sorted(known))}")
    session: Session = known[name].load()(run_config)
    return session


app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the session that the run config describes."""
    run_session(open_session(context.run_config), grid)
