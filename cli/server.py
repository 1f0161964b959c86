"""`palate server`: a fleet of real devices, from its keys to its last round. Each command with its example."""

from __future__ import annotations

from collections.abc import Callable

import typer

from palate.cli.server_backup import backup, restore
from palate.cli.server_demo import demo
from palate.cli.server_devices import admit, devices, enrol, init, remove, waiting
from palate.cli.server_new_run import new_run
from palate.cli.server_rounds import resume, rounds, start, status, stop
from palate.cli.server_swarm import swarm
from palate.cli.server_tls import renew_tls

server_app = typer.Typer(no_args_is_help=True)

_COMMANDS: dict[Callable[..., None], str] = {
    init: "init --name books --address fleet.example:9092 --catalogue items.csv",
    enrol: "enrol request.json --welcome welcome.zip",
    waiting: "waiting -o requests",
    admit: "admit certificates",
    remove: "remove 0f3c9a51d27be684",
    devices: "devices",
    start: "start --devices 12",
    resume: "resume",
    stop: "stop --wait-seconds 60",
    renew_tls: "renew-tls",
    backup: "backup books.backup",
    restore: "restore books.backup",
    status: "status --json",
    rounds: "rounds",
    new_run: "new-run --catalogue items.csv",
    demo: "demo --devices 20 --kill 0.3",
    swarm: "swarm --data ml-1m --devices 300 --killed 0.3 --lying 0.05",
}
"""Every command, in the order of the help, with an example of its arguments."""


@server_app.callback()
def server() -> None:
    """Run a fleet of real devices.

    The server never sees a device's data or its update, only sums of the updates of many, with noise in them.

    For example:
      palate server init --name books --address fleet.example:9092 --catalogue items.csv
      palate server enrol request.json --welcome welcome.zip
      palate server start
      palate server status --json
    """


for _command, _example in _COMMANDS.items():
    server_app.command(_command.__name__.replace("_", "-"), epilog=f"Example: palate server {_example}")(_command)
