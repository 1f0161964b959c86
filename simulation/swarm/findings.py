"""What a swarm proves: exact sums, ledgers that verify, budgets that agree, named lies, and what was learned."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

from palate.client.vault.heads import unpack_head
from palate.models.arrays import BoolArray, Float64Array
from palate.models.learning.kernel import fresh_heads
from palate.models.metrics import RankingMetrics
from palate.models.scores.base import Shape, State
from palate.models.table import ItemTable, initial_embeddings
from palate.privacy.accounting.events import Unit
from palate.privacy.charging import epsilon_of
from palate.privacy.wire import RoundPlan
from palate.server.coordinator import Coordinator
from palate.server.decoding import UpdateSum
from palate.server.fleet.config import load_config
from palate.server.fleet.folder import FleetFolder, read_key
from palate.server.fleet.summary import rounds_of, status_of
from palate.server.ledger import ServerLedger
from palate.server.store import TABLE_FORMAT, RunStore, read_tensors
from palate.simulation.fleet_demo.checks import Check, DeviceFindings, ServerFindings, checks_of
from palate.simulation.fleet_demo.folders import DemoFleet
from palate.simulation.host import ShardHost, join_answers
from palate.simulation.ledgers import make_keys
from palate.simulation.noise_keys import make_noise_key
from palate.simulation.seeding import table_rng
from palate.simulation.swarm.faults import REFUSED_AS, Lie
from palate.simulation.swarm.people import Population
from palate.simulation.swarm.running import SwarmRound


class _Learned(ShardHost):
    """The people of a swarm as a simulation's shard: it ranks with the heads that the devices have learned."""

    def __init__(self, population: Population, heads: State) -> None:
        super().__init__(population.prepared, population.config, 0, Path(), users=population.users)
        self._learned = heads

    def _heads_before(self, server_round: int, table: ItemTable) -> State:
        del server_round, table
        return self._learned

    def _loss_of(self, server_round: int) -> Float64Array:
        """Return zeros: devices tell nobody their losses."""
        del server_round
        return np.zeros(2)


class _Together(ShardHost):
    """The people of a swarm as a simulation has them: all in one shard, and all in every round."""

    def _drawn(self, plan: RoundPlan) -> BoolArray:
        del plan
        drawn = np.zeros(self._population, dtype=np.bool_)
        drawn[self.users] = True
        return drawn

    def _surviving(self, plan: RoundPlan, everyone: BoolArray) -> BoolArray:
        del plan
        return everyone


def simulated(population: Population, folder: Path) -> RankingMetrics:
    """Run the same plan for the same people as a simulation, and rank every person's test item.

    Parameters
    ----------
    population
        Whose.
    folder
        A new folder for the ledgers and keys of the simulated devices.
    """
    folder.mkdir(parents=True)
    make_keys(folder)
    make_noise_key(folder, seed=None)
    config, prepared = population.config, population.prepared
    schedule, count = config.schedule, len(population.users)
    start = initial_embeddings(
        prepared.interactions.num_items, schedule.dim, scale=schedule.initial_scale, rng=table_rng(config.seed)
    )
    settings = config.server_settings(run="paired", population=count)
    coordinator = Coordinator(settings, prepared.content.columns, start)
    people = _Together(prepared, config, 0, folder, users=population.users)
    while not coordinator.finished:
        plan = coordinator.plan()
        total = UpdateSum(plan)
        total.add(people.answer(plan))
        coordinator.apply(total.total(), survivors=count)
    return _ranked(people, coordinator.table, schedule.rounds)


def last_table(fleet: FleetFolder) -> ItemTable:
    """Read the table that the leader made last; raises RunError if it is missing or damaged."""
    arrays, _ = read_tensors(RunStore(fleet.run).table_path, TABLE_FORMAT)
    return ItemTable(arrays["fixed"], arrays["learned"])


def accuracy_of(population: Population, table: ItemTable, heads: dict[int, bytes | None]) -> RankingMetrics:
    """Rank every person's test item, as a simulation does after its last round.

    Parameters
    ----------
    population
        Whose.
    table
        The last one.
    heads
        What each device's vault has as its head, by its place; None where it has none.
    """
    training = population.config.training
    shape = Shape(fixed_dim=table.fixed_dim, dim=table.dim, hidden=training.hidden)
    state = fresh_heads(table, training, len(population.users))
    for place, data in heads.items():
        head = None if data is None else unpack_head(data, training, shape)
        for name, value in (head or {}).items():
            state[name][place] = torch.from_numpy(np.array(value))
    return _ranked(_Learned(population, state), table, population.config.schedule.rounds)


def _ranked(people: ShardHost, table: ItemTable, rounds: int) -> RankingMetrics:
    question: dict[str, str | int] = {"part": "test", "full": 0, "round": rounds}
    answer = people.inspect(question, {"fixed": table.fixed, "learned": table.learned})
    return join_answers([answer], full=False)[0].metrics()


def checks(
    demo: DemoFleet,
    population: Population,
    rounds: dict[int, SwarmRound],
    server: ServerFindings,
    devices: DeviceFindings,
) -> list[Check]:
    """Say what holds of a swarm whose run is over."""
    config, made = load_config(demo.fleet.config), rounds_of(demo.fleet)
    done = [each["round"] for each in made if each["status"] == "done"]
    exact = [number for number in done if rounds[number].exact]
    planned = 1 + config.schedule.rounds
    lost = len(made) - len(done)
    simulated = population.config
    differ = [
        name
        for name in ("schedule", "training", "optimiser", "release")
        if getattr(config, name) != getattr(simulated, name)
    ]
    return [
        Check("rounds", len(done) == planned, f"{len(done)} of {planned} are done, {lost} were lost"),
        Check("plan", not differ, f"the simulation's{', but for ' + ', '.join(differ) if differ else ''}"),
        Check(
            "sums",
            exact == done,
            f"{len(exact)} of {len(done)} are the plain sum of the accepted vectors, integer for integer "
            "(devices told the swarm their vectors for this check)",
        ),
        _named(rounds),
        *checks_of(demo, server, devices),
        _recomputed(demo),
    ]


def _named(rounds: dict[int, SwarmRound]) -> Check:
    """Check that every lie got its name, and nobody honest did."""
    told: Counter[str] = sum((each.lies for each in rounds.values()), Counter())
    expected: Counter[str] = Counter()
    for lie, count in told.items():
        expected[REFUSED_AS[Lie(lie)]] += count
    named: Counter[str] = sum((each.refusals for each in rounds.values()), Counter())
    return Check("lies", expected == named, f"{told.total()} were told, {named.total()} refused by name")


def _recomputed(demo: DemoFleet) -> Check:
    """Compute epsilon again, from the entries of the server's ledger."""
    config, said = load_config(demo.fleet.config), float(status_of(demo.fleet)["epsilon_spent"])
    with closing(
        ServerLedger(
            demo.fleet.ledger,
            read_key(demo.fleet.server_key),
            {Unit.USER: config.promise.policy(smallest_cohort=config.cohort.smallest)},
        )
    ) as ledger:
        charged = ledger.charged(Unit.USER)
    found = epsilon_of(charged, config.delta)
    held = abs(found - said) < 1e-9 and found <= config.epsilon
    return Check("epsilon", held, f"{found:.4f} from the ledger's entries, {said:.4f} said, {config.epsilon:g} planned")
