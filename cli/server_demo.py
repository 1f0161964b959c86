"""`palate server demo`: a whole fleet on this machine, in one command."""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from palate.cli.options import ExplainOption, folder_option
from palate.cli.server_rounds import round_grid
from palate.cli.terminal import Answer, Line, answering
from palate.errors import ConfigError, FederationError
from palate.privacy.accounting.guarantee import round_up


@answering
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
    peers: Annotated[
        bool, typer.Option("--peers", help="Without a helper: devices share masks with each other.")
    ] = False,
    epsilon: Annotated[float, typer.Option(help="Privacy budget of the run, per user.")] = 8.0,
    seed: Annotated[int, typer.Option(help="Draws people and accidents; keys and noise are never seeded.")] = 1,
    folder: Annotated[
        Path | None, folder_option("Keep the fleet in this new folder.", show_default="a temporary one")
    ] = None,
    timeout_seconds: Annotated[float, typer.Option(min=10, help="When to give up.")] = 900.0,
    explain: ExplainOption = False,
) -> Answer:
    """Bring up a whole fleet on this machine: real processes, TLS, secure aggregation, and devices that die.

    A server, a helper and devices talk over the loopback interface as they would over a network. Some devices are
    killed with SIGKILL in the middle of a round, some come back. In the end ledgers, budgets and tables are checked.
    People and films are the embedded demo's; with so few devices the noise hides nearly all of what could be learned.
    """
    with new_folder(folder, "palate-fleet-") as root:
        found = _run(root, devices, rounds, kill, kill_server, peers, epsilon, seed, timeout_seconds)
        found["person"]["folder"] = None if folder is None else str(found["person"]["folder"])
    return Answer(found, _lines(found, explain=explain), check=lambda: require_held(found["checks"]))


@contextmanager
def new_folder(folder: Path | None, prefix: str) -> Iterator[Path]:
    """Yield the new folder that was asked for, which is kept, or a temporary one.

    Raises
    ------
    ConfigError
        If there is something in it.
    KeyboardInterrupt
        If somebody stops it meanwhile, with a word on what is left.
    """
    if folder is not None and folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty", hint="choose a new folder")
    root = folder or Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield root
    except KeyboardInterrupt:
        kept = "nothing of it is left" if folder is None else f"what there was is in {folder}"
        raise KeyboardInterrupt(f"server and devices were stopped, {kept}; it begins anew each time") from None
    finally:
        if folder is None:
            shutil.rmtree(root, ignore_errors=True)


def _run(
    root: Path,
    devices: int,
    rounds: int,
    kill: float,
    kill_server: bool,
    peers: bool,
    epsilon: float,
    seed: int,
    timeout: float,
) -> dict[str, Any]:
    from palate.server.fleet.config import load_config
    from palate.server.fleet.summary import rounds_of, status_of
    from palate.server.helper.status import status_of as helper_status
    from palate.simulation.fleet_demo.checks import examine
    from palate.simulation.fleet_demo.folders import build, choose
    from palate.simulation.fleet_demo.person import seen_of, titles_for
    from palate.simulation.fleet_demo.running import FleetRun, plan_kills

    console = Console(stderr=True)
    catalogue, people = choose(devices, seed)
    with Progress(*Progress.get_default_columns(), console=console, transient=True) as progress:
        enrolling = progress.add_task("enrolling devices", total=devices)
        demo_fleet = build(
            root,
            catalogue,
            people,
            rounds=rounds,
            epsilon=epsilon,
            smallest=max(2, devices // 2),
            with_helper=not peers,
            progress=lambda done: progress.update(enrolling, completed=done),
        )
        progress.remove_task(enrolling)
        who = "a server" if peers else "a server, a helper"
        console.print(f"{who} and {devices} devices, {catalogue.num_items} items, TLS on the loopback interface")
        kills = plan_kills(
            list(demo_fleet.devices), rounds=rounds, share=kill, server=kill_server, seed=seed, with_helper=not peers
        )
        victims = {each.device for each in kills}
        person = next(name for name in demo_fleet.devices if name not in victims)
        before = titles_for(demo_fleet.devices[person])
        running = FleetRun(demo_fleet, kills, console.print)
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

        outcome = running.run(timeout_seconds=timeout, progress=draw)
    found, promise = status_of(demo_fleet.fleet), load_config(demo_fleet.fleet.config).promise
    return {
        "devices": devices,
        "rounds": rounds_of(demo_fleet.fleet),
        "accidents": [
            {
                "device": each.device or "server",
                "round": each.server_round,
                "step": each.step.value,
                "returned": each.returns,
            }
            for each in outcome.kills
        ],
        "epsilon_spent": found["epsilon_spent"],
        "epsilon_budget": found["epsilon_budget"],
        **promise.reading,
        "words": promise.words,
        "guarantee": found["guarantee"],
        "checks": [asdict(each) for each in examine(demo_fleet)],
        "seconds": outcome.seconds,
        "idle_agent_memory_mb": statistics.median(outcome.idle_memory_mb) if outcome.idle_memory_mb else None,
        "server_memory_mb": outcome.server_memory_mb,
        "helper_memory_mb": None if peers else outcome.helper_memory_mb,
        "helper": None if demo_fleet.helper is None else helper_status(demo_fleet.helper).values,
        "person": {
            "device": person,
            "folder": demo_fleet.devices[person].home,
            "before": before,
            "after": titles_for(demo_fleet.devices[person]),
            "seen": asdict(seen_of(demo_fleet.fleet, person)),
        },
    }


def require_held(checks: list[dict[str, Any]]) -> None:
    """Raise FederationError with what does not hold, if anything does not."""
    if failed := [check["what"] for check in checks if not check["held"]]:
        raise FederationError(f"not everything is as it has to be: {', '.join(failed)}", hint="report this")


def check_lines(checks: list[dict[str, Any]]) -> Iterator[Line]:
    """Say of every check whether it holds."""
    yield f"{sum(check['held'] for check in checks)} of {len(checks)} checks of the fleet hold."
    for check in checks:
        yield f"{'ok  ' if check['held'] else 'BAD '} {check['what']}: {check['words']}"


def spent_lines(found: dict[str, Any], *, explain: bool) -> Iterator[Line]:
    """Say in one line what a fleet's run has spent, and what that is about where somebody asks."""
    yield (
        f"epsilon {round_up(found['epsilon_spent'])} of {found['epsilon_budget']:g} spent at delta {found['delta']:g} "
        f"per {found['unit']}, for all rounds together"
    )
    if explain:
        yield found["words"]


def _lines(found: dict[str, Any], *, explain: bool) -> Iterator[Line]:
    yield from check_lines(found["checks"])
    yield round_grid(found["rounds"])
    killed = sum(each["device"] != "server" for each in found["accidents"])
    returned = sum(each["returned"] for each in found["accidents"])
    yield f"{killed} devices were killed, {returned} processes came back"
    yield from spent_lines(found, explain=explain)
    yield f"the guarantee {found['guarantee']['meaning']}"
    if found["helper"] is not None:
        done = [each for each in found["rounds"] if each["status"] == "done"]
        size = statistics.mean(each["bytes_up_per_device"] for each in done) / 1e3 if done else 0.0
        reports = found["helper"]["reports"]
        yield (
            f"the server saw {reports} reports of {size:.1f} KB, uniform words without their masks, and {len(done)} "
            f"sums; the helper saw {reports} sealed seeds and no word of a vector"
        )
    yield from _of_person(found["person"], with_helper=found["helper"] is not None)
    memory = found["idle_agent_memory_mb"]
    helper = "" if found["helper_memory_mb"] is None else f", the helper {found['helper_memory_mb']:.0f} MB"
    yield (
        f"{found['seconds']:.0f} s; an idle device holds {0 if memory is None else memory:.0f} MB, the server "
        f"{found['server_memory_mb']:.0f} MB at most{helper}"
    )


def _of_person(person: dict[str, Any], *, with_helper: bool) -> Iterator[Line]:
    """Tell of one person: the list before and after, what others have seen, and where to look."""
    seen = person["seen"]
    yield f"One person, device {person['device']}:"
    yield f"  list before the first round: {'; '.join(person['before'])}"
    yield f"  list with the last table:    {'; '.join(person['after'])}"
    what = "reports" if with_helper else "times keys, sealed shares and a masked vector"
    yield (
        f"  the server saw {seen['reports']} {what}, {seen['bytes_up'] / 1e3:.1f} KB that look random, and that the "
        "device took part"
    )
    if with_helper:
        yield f"  the helper saw {seen['reports']} sealed seeds, and that the device took part; no title reached either"
    if person["folder"] is None:
        yield "  to look at the device itself, keep the fleet: palate server demo --folder FOLDER"
    else:
        yield f"  to look at the device itself: palate client page --folder {person['folder']}"
