"""`palate server` with its demonstration, which needs virtual people and so lives with the simulation."""

from __future__ import annotations

from palate.server.cli import server_app
from palate.simulation.fleet_demo.cli import demo

server_app.command("demo")(demo)

__all__ = ["server_app"]
