"""`palate server` with its demonstration, which needs virtual people and so lives with the simulation."""

from __future__ import annotations

from palate.cli.fleet_demo import demo
from palate.cli.operating import server_app

server_app.command("demo")(demo)

__all__ = ["server_app"]
