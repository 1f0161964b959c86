"""`palate server renew-tls`: a new certificate for the key of the server's TLS."""

from __future__ import annotations

from typing import Annotated

import typer

from palate.cli.server_devices import HERE, FolderOption
from palate.cli.terminal import Answer, answering
from palate.server.fleet.folder import FleetFolder


@answering
def renew_tls(
    *,
    folder: FolderOption = HERE,
    days: Annotated[int, typer.Option(help="Days that it is valid.", metavar="DAYS")] = 397,
) -> Answer:
    """Issue a new TLS certificate for the server's key, signed by the fleet's own authority.

    A server that runs uses it within seconds and is not stopped. Devices pin the authority, so they need nothing new.
    palate server status says from 30 days before the end that it is time.
    """
    from palate.server.fleet.certificates import renew_server_certificate
    from palate.server.fleet.config import load_config
    from palate.server.fleet.setup import tls_authority, tls_server

    fleet = FleetFolder(folder)
    fleet.require()
    host = load_config(fleet.config).listen.host
    last = renew_server_certificate(tls_authority(fleet), tls_server(fleet), hosts=[host], days=days)
    said = f"the certificate for {host} is valid until {last:%Y-%m-%d}"
    return Answer({"host": host, "tls_ends": last.isoformat()}, [said])
