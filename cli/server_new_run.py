"""`palate server new-run`: the next run of a fleet, on the same keys, people, register and ledgers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from palate.cli.fields import reads
from palate.cli.server_devices import HERE, FolderOption
from palate.cli.terminal import Answer, answering
from palate.data.options import ReadOptions
from palate.server.fleet.folder import FleetFolder


@reads("item_column", "title_column", "columns", "strict")
@answering
def new_run(
    *,
    folder: FolderOption = HERE,
    catalogue: Annotated[
        Path | None,
        typer.Option(
            help="File of the items, where the list has changed.", show_default="the last run's", metavar="FILE"
        ),
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option(help="Privacy budget of the run, per user.", show_default="the last run's")
    ] = None,
    delta: Annotated[
        float | None, typer.Option(help="Failure probability of the guarantee.", show_default="the last run's")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(help="Training rounds.", show_default="the last run's, or from budget and devices")
    ] = None,
    devices: Annotated[
        int | None, typer.Option(help="Devices that the run is planned for.", show_default="those enrolled")
    ] = None,
    smallest: Annotated[
        int | None, typer.Option(help="Fewest devices in a round.", show_default="as for palate server init")
    ] = None,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="End the last run as it is, although rounds of it are left.")
    ] = False,
    read: ReadOptions,
) -> Answer:
    """Begin the next run of a fleet: same keys, people and ledgers, from the last table, with today's catalogue.

    What the last run spent stays spent, on the server and on every device; this run's budget comes on top. Devices
    fetch the plan, show it to their owners, and refuse what exceeds their limits.
    """
    from palate.privacy.accounting.guarantee import round_up
    from palate.server.fleet.config import load_config
    from palate.server.fleet.next_run import begin_next_run, promised_in_all
    from palate.server.values import nested

    fleet = FleetFolder(folder)
    given: dict[str, Any] = nested(
        {
            "epsilon": epsilon,
            "delta": delta,
            "schedule.rounds": rounds,
            "cohort.devices": devices,
            "cohort.smallest": smallest,
        }
    )
    made = begin_next_run(fleet, given, catalogue=catalogue, read=read, unfinished=unfinished)
    config = load_config(fleet.config)
    in_all = promised_in_all(fleet, config)
    lines = [
        f"run {made.run} follows {made.before}, which is kept in {fleet.runs / made.before}",
        f"{made.items:,} items: {made.new:,} new, {made.gone:,} gone; {made.learned:,} start from the last table",
        f"planned for {made.devices} devices: {1 + config.schedule.rounds} rounds within epsilon {config.epsilon:g} at "
        f"delta {config.delta:g} per user",
        f"whoever takes part in all runs will have spent epsilon {round_up(in_all)} at most at that delta",
        "next: palate server start",
    ]
    notes = [f"note: {words}" for words in made.notes]
    return Answer({**asdict(made), "epsilon": config.epsilon, "epsilon_in_all_runs": in_all}, lines, notes)
