"""`palate server demo`: a whole fleet on this machine, in one command."""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from palate.errors import ConfigError, FederationError


def demo(
    *,
    devices: Annotated[int, typer.Option(min=4, max=200, help="Devices, each a process of its own.")] = 20,
    rounds: Annotated[int, typer.Option(min=2, max=50, help="Rounds, the popularity round included.")] = 5,
    kill: Annotated[
        float, typer.Option(min=0, max=0.45, help="Share of the devices that are killed, at random steps.")
    ] = 0.3,
    kill_server: Annotated[
        bool, typer.Option("--kill-server", help="Kill the server as well, once, and start it again.")
    ] = False,
    epsilon: Annotated[float, typer.Option(help="Privacy budget of the run, per user.")] = 8.0,
    seed: Annotated[int, typer.Option(help="Draws people and accidents; keys and noise are never seeded.")] = 1,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Keep the fleet in this new folder.", show_default="a temporary one")
    ] = None,
    timeout_seconds: Annotated[float, typer.Option(min=10, help="When to give up.")] = 900.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Bring up a whole fleet on this machine: real processes, TLS, secure aggregation, and devices that die.

    A server and its devices talk over the loopback interface as they would over a network. Some devices are killed with
    SIGKILL in the middle of a round, some come back. In the end all ledgers, budgets and tables are checked. People and
    films are the embedded demo's; with so few devices the noise hides nearly all of what could be learned.

    Example: palate server demo --devices 20 --kill 0.3
    """
    if directory is not None and directory.exists() and any(directory.iterdir()):
        raise ConfigError(f"{directory} is not empty", hint="choose a new folder")
    root = directory or Path(tempfile.mkdtemp(prefix="palate-fleet-"))
    try:
        found = _run(root, devices, rounds, kill, kill_server, epsilon, seed, timeout_seconds)
    except KeyboardInterrupt:
        kept = "nothing of it is left" if directory is None else f"what there was is in {directory}"
        raise KeyboardInterrupt(f"server and devices were stopped, {kept}; the demo begins anew each time") from None
    finally:
        if directory is None:
            shutil.rmtree(root, ignore_errors=True)
    if as_json:
        print(json.dumps(found, indent=2, allow_nan=False))
    else:
        _show(found)
    failed = [check["what"] for check in found["checks"] if not check["held"]]
    if failed:
        raise FederationError(f"not everything is as it has to be: {', '.join(failed)}", hint="report this")


def _run(
    root: Path, devices: int, rounds: int, kill: float, kill_server: bool, epsilon: float, seed: int, timeout: float
) -> dict[str, Any]:
    from palate.server.fleet.config import load_config
    from palate.server.fleet.summary import rounds_of, status_of
    from palate.simulation.fleet_demo.cast import choose
    from palate.simulation.fleet_demo.director import Director, plan_accidents
    from palate.simulation.fleet_demo.stage import build
    from palate.simulation.fleet_demo.verdict import examine

    console = Console(stderr=True)
    catalogue, people = choose(devices, seed)
    with Progress(
        TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True,
    ) as progress:  # fmt: skip
        enrolling = progress.add_task("enrolling devices", total=devices)
        stage = build(
            root, catalogue, people, rounds=rounds, epsilon=epsilon, smallest=max(2, devices // 2),
            told=lambda done: progress.update(enrolling, completed=done),
        )  # fmt: skip
        progress.remove_task(enrolling)
        console.print(f"a server and {devices} devices, {catalogue.num_items} items, TLS on the loopback interface")
        accidents = plan_accidents(list(stage.devices), rounds=rounds, share=kill, server=kill_server, seed=seed)
        director = Director(stage, accidents, console.print)
        task = progress.add_task("starting processes", total=rounds)

        def draw(event: dict[str, Any]) -> None:
            if event["event"] == "step-begun" and event["step"] != "receipt":
                progress.update(task, description=f"round {event['round']}: {event['step']}")
            if event["event"] == "round-ended":
                progress.advance(task, event["status"] == "done")
                why = f" ({event['reason']})" if event["reason"] else ""
                console.print(
                    f"round {event['round']} is {event['status']}{why}: {event['asked']} asked, {event['roster']} on "
                    f"the roster, {event['survivors']} in the sum"
                )

        played = director.play(timeout_seconds=timeout, progress=draw)
    found, promise = status_of(stage.fleet), load_config(stage.fleet.config).promise
    return {
        "devices": devices,
        "rounds": rounds_of(stage.fleet),
        "accidents": [
            {"device": each.device or "server", "round": each.server_round, "step": each.step.value,
             "returned": each.returns}
            for each in played.accidents
        ],
        "epsilon_spent": found["epsilon_spent"],
        "epsilon_budget": found["epsilon_budget"],
        **promise.reading,
        "words": promise.words,
        "guarantee": found["guarantee"],
        "checks": [{"what": each.what, "held": each.held, "words": each.words} for each in examine(stage)],
        "seconds": played.seconds,
        "idle_agent_memory_mb": statistics.median(played.idle_memory_mb) if played.idle_memory_mb else None,
        "server_memory_mb": played.server_memory_mb,
    }  # fmt: skip


def _show(found: dict[str, Any]) -> None:
    from palate.privacy.accounting.guarantee import round_up

    table = Table(box=None)
    for title in ("round", "purpose", "status", "asked", "roster", "in the sum", "KB up", "KB down", "s"):
        table.add_column(title, justify="left" if title in ("purpose", "status") else "right")
    for each in found["rounds"]:
        table.add_row(
            str(each["round"]), each["purpose"], each["status"], str(each["asked"]), str(each["roster"]),
            str(each["survivors"]), f"{each['bytes_up_per_device'] / 1e3:.1f}",
            f"{each['bytes_down_per_device'] / 1e3:.1f}", f"{each['seconds'] or 0:.0f}",
        )  # fmt: skip
    console = Console()
    console.print(table)
    killed = sum(each["device"] != "server" for each in found["accidents"])
    returned = sum(each["returned"] for each in found["accidents"])
    console.print(f"{killed} devices were killed, {returned} processes came back")
    console.print(
        f"epsilon {round_up(found['epsilon_spent'])} of {found['epsilon_budget']:g} spent per user at delta "
        f"{found['delta']:g}: {found['words']}"
    )
    console.print(f"the guarantee is {found['guarantee']['against']}: it {found['guarantee']['meaning']}")
    memory = found["idle_agent_memory_mb"]
    console.print(
        f"{found['seconds']:.0f} s; an idle device holds {0 if memory is None else memory:.0f} MB, the server "
        f"{found['server_memory_mb']:.0f} MB at most"
    )
    for check in found["checks"]:
        console.print(f"{'ok  ' if check['held'] else 'BAD '} {check['what']}: {check['words']}")
