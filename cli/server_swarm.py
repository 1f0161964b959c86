"""`palate server swarm`: thousands of virtual devices through the real protocol: the load test, and the proof."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate.cli.options import ExplainOption, folder_option
from palate.cli.server_demo import check_lines, new_folder, require_held, spent_lines
from palate.cli.terminal import Answer, Line, answering
from palate.errors import ConfigError

if TYPE_CHECKING:
    from palate.simulation.swarm.running import SwarmRun


@answering
def swarm(
    *,
    data: Annotated[str, typer.Option(help="Dataset name, file or folder, as in palate simulate.")] = "demo",
    devices: Annotated[
        int | None, typer.Option(min=4, help="People who take part, drawn from the seed.", show_default="all of them")
    ] = None,
    epsilon: Annotated[float, typer.Option(min=0.01, help="Privacy budget of the run, per user.")] = 8.0,
    rounds: Annotated[
        int | None, typer.Option(min=1, max=50, help="Training rounds.", show_default="as planned")
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws people and faults; keys and noise are never seeded.")] = 1,
    killed: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of the devices that are killed once, at a random moment.")
    ] = 0.0,
    lying: Annotated[
        float, typer.Option(min=0, max=0.2, help="Share of the devices that lie in every round, each in one way.")
    ] = 0.0,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that share the devices.")] = 2,
    compare: Annotated[
        bool, typer.Option("--compare", help="Simulate the same plan for the same people as well.")
    ] = False,
    folder: Annotated[
        Path | None, folder_option("Keep fleet, helper and devices in this new folder.", show_default="a temporary one")
    ] = None,
    timeout_seconds: Annotated[float, typer.Option(min=10, help="When to give up.")] = 14_400.0,
    explain: ExplainOption = False,
) -> Answer:
    """Drive thousands of virtual devices through a real leader and a real helper, and check every sum.

    Each device has its own folder, keys, vault, ledger and persisted reports, and speaks TLS over the loopback
    interface; a few processes give them their turns. Some may be killed, some may lie. In the end every collected sum
    is compared with the plain sum of the accepted vectors, ledgers and budgets are checked, and the last table is
    ranked as palate simulate ranks it.
    """
    if killed + lying > 1:
        raise ConfigError(f"{killed:g} killed and {lying:g} lying are more than all devices", hint="lower one of them")
    with new_folder(folder, "palate-swarm-") as root:
        found = _run(
            root,
            data=data,
            devices=devices,
            epsilon=epsilon,
            rounds=rounds,
            seed=seed,
            killed=killed,
            lying=lying,
            workers=workers,
            compare=compare,
            timeout_seconds=timeout_seconds,
        )
    return Answer(found, _lines(found, explain=explain), check=lambda: require_held(found["checks"]))


def _run(
    root: Path,
    *,
    data: str,
    devices: int | None,
    epsilon: float,
    rounds: int | None,
    seed: int,
    killed: float,
    lying: float,
    workers: int,
    compare: bool,
    timeout_seconds: float,
) -> dict[str, Any]:
    from palate.server.fleet.config import load_config
    from palate.server.fleet.summary import rounds_of, status_of
    from palate.server.helper.status import status_of as helper_status
    from palate.simulation.fleet_demo.checks import DeviceFindings, examine_server
    from palate.simulation.swarm.faults import Faults
    from palate.simulation.swarm.findings import accuracy_of, checks, last_table, simulated
    from palate.simulation.swarm.people import Population
    from palate.simulation.swarm.running import SwarmRun

    population = Population.drawn(data, devices, epsilon=epsilon, seed=seed, rounds=rounds)
    count = len(population.users)
    faults = Faults.drawn(count, killed=killed, lying=lying, rounds=1 + population.config.schedule.rounds, seed=seed)
    bar = _Bar()
    run = SwarmRun(population, faults, root, workers=workers, tell=bar.say, progress=bar.move)
    with bar:
        demo = run.make()
        assert demo.helper is not None  # a swarm has one
        config = load_config(demo.fleet.config)
        bar.say(
            f"a leader, a helper and {count:,} devices in {workers} processes, TLS on the loopback interface; "
            f"{1 + config.schedule.rounds} rounds of {population.prepared.interactions.num_items:,} items"
        )
        with run.crew() as crew:
            run.enrol(crew)
            run.run(crew, timeout_seconds=timeout_seconds)
            server = examine_server(demo.fleet)
            bar.begin("checking ledgers", count)
            looked_at = sum(crew.all("examine", server.tables, server.spent), DeviceFindings())
            heads = {place: head for part in crew.all("heads", config.run) for place, head in part}
        bar.begin("ranking", 0)
        ranked = accuracy_of(population, last_table(demo.fleet), heads)
        simulation = simulated(population, root / "simulated") if compare else None
        held = checks(demo, population, run.rounds, server, looked_at)
    status, made = status_of(demo.fleet), rounds_of(demo.fleet)
    done = [each for each in made if each["status"] == "done"]
    return {
        "data": data,
        "devices": count,
        "killed": len(faults.deaths),
        "lying": len(faults.lies),
        "tau": config.cohort.tau,
        "rounds": [_round(each, run) for each in made],
        "epsilon_spent": status["epsilon_spent"],
        "epsilon_budget": epsilon,
        **config.promise.reading,
        "words": config.promise.words,
        "guarantee": status["guarantee"],
        "hr@10": ranked.hit_rate.value,
        "ndcg@10": ranked.ndcg.value,
        "people_ranked": ranked.num_users,
        "simulated": None
        if simulation is None
        else {"hr@10": simulation.hit_rate.value, "ndcg@10": simulation.ndcg.value},
        "checks": [asdict(each) for each in held],
        "measured": asdict(run.measured),
        "bytes_per_report": statistics.mean(each["bytes_up_per_device"] for each in done) if done else None,
        "helper": helper_status(demo.helper).values,
    }


def _round(each: dict[str, Any], run: SwarmRun) -> dict[str, Any]:
    noted = run.rounds[each["round"]]
    counts = {name: dict(getattr(noted, name)) for name in ("deaths", "lies", "refusals", "missing")}
    return each | counts | {"returned": noted.returned, "vectors": noted.vectors, "exact": noted.exact}


class _Bar:
    """Progress on stderr with the time left, and lines above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True)
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self._progress = Progress(*columns, console=self._console, transient=True)
        self._task = self._progress.add_task("reading data", total=None)
        self._what = ""

    def __enter__(self) -> None:
        self._progress.start()

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, highlight=False, markup=False)

    def begin(self, what: str, total: int) -> None:
        """Begin something that so many devices take part in."""
        self._what = what
        self._progress.reset(self._task, description=what, total=total or None)

    def move(self, what: str, total: int, count: int) -> None:
        """Note that so many more devices are done."""
        if what != self._what:
            self.begin(what, total)
        self._progress.advance(self._task, count)


def _lines(found: dict[str, Any], *, explain: bool) -> Iterator[Line]:
    from palate.simulation.report.tables import text_grid

    yield from check_lines(found["checks"])
    rows = [
        (
            f"{each['round']} {each['purpose']}",
            each["status"],
            f"{each['asked']:,}",
            f"{each['roster']:,}",
            f"{each['survivors']:,}",
            "yes" if each["exact"] else "NO",
            f"{sum(each['deaths'].values())}, {each['returned']} back",
            f"{sum(each['lies'].values())}",
        )
        for each in found["rounds"]
    ]
    columns = ("Round", "Status", "Asked", "Reports", "In the sum", "Exact", "Killed", "Lies")
    yield text_grid("Rounds", columns, rows)
    for title, name in (("refused by name", "refusals"), ("missing for another reason", "missing")):
        total: Counter[str] = sum((Counter(each[name]) for each in found["rounds"]), Counter())
        for why, count in sorted(total.items()):
            yield f"{count:>6} {title}: {why}"
    yield from spent_lines(found, explain=explain)
    yield f"the guarantee is {found['guarantee']['against']}: it {found['guarantee']['meaning']}"
    yield (
        f"HR@10 {found['hr@10']:.4f}, NDCG@10 {found['ndcg@10']:.4f} for the test items of {found['people_ranked']:,} "
        "people, as palate simulate ranks them"
    )
    if found["simulated"] is not None:
        yield "simulated for the same people: HR@10 {hr@10:.4f}, NDCG@10 {ndcg@10:.4f}".format(**found["simulated"])
    measured = found["measured"]
    yield (
        f"CPU: leader {measured['leader_cpu_seconds']:.0f} s, helper {measured['helper_cpu_seconds']:.0f} s, devices "
        f"{measured['devices_cpu_seconds']:.0f} s with training; of all, {measured['enrolling_cpu_seconds']:.0f} s to "
        f"enrol. Rounds took {measured['seconds']:.0f} s"
    )
    size = found["bytes_per_report"]
    yield (
        f"the leader held {measured['leader_memory_mb']:.0f} MB at most, the helper "
        f"{measured['helper_memory_mb']:.0f} MB; a report has {0 if size is None else size:,.0f} bytes"
    )
