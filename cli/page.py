"""`palate client page`: the owner's device in their own browser."""

from __future__ import annotations

from typing import Annotated

import typer

from palate.cli.owner import HomeOption
from palate.client.fleet.folder import DeviceFolder, default_home

EPILOG = "Example: palate client page --no-browser"


def page(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the link only.")] = False,
    home: HomeOption = None,
) -> None:
    """Show recommendations, the profile and what was sent on a local page, until Ctrl-C."""
    from palate.client.page.serving import serve

    def tell(link: str) -> None:
        typer.echo(link)
        typer.echo("only this link opens the page, and only on this machine; Ctrl-C ends it", err=True)

    serve(DeviceFolder((home or default_home()).absolute()), port=port, browser=not no_browser, tell=tell)
    typer.echo("the page has ended", err=True)
