"""`palate client` with its demonstration device, whose table needs virtual people and so lives with the simulation."""

from __future__ import annotations

from palate.cli.membership import client_app
from palate.cli.page import EPILOG, page
from palate.cli.try_device import try_

client_app.command("page", epilog=EPILOG)(page)
client_app.command("try", epilog="Example: palate client try")(try_)

__all__ = ["client_app"]
