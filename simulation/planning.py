"""Plan a run: every setting with its reason, and the cost, before the run starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from palate.privacy.accounting.events import Unit
from palate.privacy.budget import events_of, terms_of
from palate.privacy.colluding import IfColluding, LeastSum, colluding_words, if_colluding
from palate.server.coordinator import Coordinator
from palate.server.resolving import Setting, Source
from palate.server.values import flat
from palate.simulation.claims import PUBLIC_CATALOGUE, label_of
from palate.simulation.config import SimulationConfig, checked_config
from palate.simulation.cost import Cost, estimate
from palate.simulation.prepare import Prepared, coordinator_of, prepare
from palate.simulation.protection import cohort_of, device_rounds
from palate.simulation.report.rendering import Protection, cell
from palate.simulation.report.tables import facts_grid, text_grid
from palate.simulation.report.words import data_size
from palate.simulation.resolving import resolve, shown

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, eq=False, kw_only=True)
class Plan:
    """A run before it starts.

    Attributes
    ----------
    asked
        The settings that a run is given: config.toml of the run.
    settings
        The settings that will run: resolved.toml of the run.
    decisions
        Every setting with its value, source and reason, in the order of docs/configuration.md.
    people, items, interactions
        Size of the data.
    protection
        The planned guarantee: epsilon with its unit, delta, adjacency and assumptions; or none.
    noise_multipliers
        Noise in the sum over the sensitivity, of the popularity round and of a training round; None without protection.
    device_rounds
        Training rounds of one device, at most.
    bytes_down, bytes_up
        Traffic of one device in one training round: the item table with the plan's arrays, and the update.
    cost
        An estimate of what the run costs on this machine.
    if_colluding
        What would be left of the guarantee at unit user with 1, 5 and 10% colluders; empty where others' noise protects
        nobody.
    """

    asked: SimulationConfig = field(repr=False)
    settings: SimulationConfig = field(repr=False)
    decisions: tuple[Setting, ...] = field(repr=False)
    people: int
    items: int
    interactions: int
    protection: Protection
    noise_multipliers: tuple[float, float] | None
    device_rounds: int
    bytes_down: int
    bytes_up: int
    cost: Cost
    if_colluding: tuple[IfColluding, ...] = ()

    @property
    def colluders(self) -> str:
        """What would be left of unit user if more devices colluded, as a sentence; empty where it does not matter."""
        if not self.if_colluding or self.settings.delta is None:
            return ""
        return colluding_words(self.if_colluding, self.settings.delta, of="all people")

    @property
    def reasons(self) -> dict[str, str]:
        """Why each setting has its value, by its dotted name."""
        return {each.name: each.reason for each in self.decisions}

    def decided(self) -> tuple[Setting, ...]:
        """Return the settings that do not have their default value."""
        return tuple(each for each in self.decisions if each.source is not Source.DEFAULT)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        values = flat(self.settings.model_dump(mode="json"))
        noise = self.noise_multipliers
        return {
            "data": {"people": self.people, "items": self.items, "interactions": self.interactions},
            "settings": {
                each.name: {"value": values.get(each.name), "source": str(each.source), "reason": each.reason}
                for each in self.decisions
            },
            "protected": self.protection.protected,
            "protection": str(self.protection),
            "promises": [
                {"unit": str(each.unit), "epsilon": each.epsilon, "delta": each.delta}
                for each in self.settings.promises.values()
                if self.protection.protected
            ],
            "noise_multipliers": None if noise is None else {"popularity": noise[0], "train": noise[1]},
            "device_rounds": self.device_rounds,
            "bytes_per_device_and_round": {"down": self.bytes_down, "up": self.bytes_up},
            "estimate": asdict(self.cost),
            "if_colluding": [each.to_json() for each in self.if_colluding],
        }

    def to_frame(self) -> pl.DataFrame:
        """List every setting: its name, its value as text, where it comes from, and the reason for it."""
        import polars as pl

        rows = [(each.name, shown(each.value), str(each.source), each.reason) for each in self.decisions]
        return pl.DataFrame(
            rows, schema=dict.fromkeys(("setting", "value", "source", "reason"), pl.String), orient="row"
        )

    @property
    def facts(self) -> dict[str, str]:
        """Size of the data and cost of the run, as text."""
        found = {
            "data": f"{self.people:,} people, {self.items:,} items, {self.interactions:,} interactions",
            "rounds": f"{self.settings.schedule.rounds}, after one for popularity"
            + "; they ask for it again while it is too noisy" * (self.settings.schedule.popularity_tolerance > 0),
            "cost": self.cost.words,
            "traffic of a device": f"{data_size(self.bytes_down)} down and {data_size(self.bytes_up)} up in a round",
        }
        if self.noise_multipliers is not None:
            popularity, train = self.noise_multipliers
            found["noise multipliers"] = f"{popularity:.3g} for popularity, {train:.3g} in each training round"
        return found

    def _repr_html_(self) -> str:
        """Show the plan in a notebook: guarantee, cost, and settings without their default value."""
        rows = [(each.name, shown(each.value), each.reason) for each in self.decided()]
        grids = [facts_grid("", "", self.facts), text_grid("Settings", ("", "Value", "Reason"), rows)]
        return cell(f"Plan: {self.settings.data}", grids, protection=self.protection)


def plan(asked: SimulationConfig | Mapping[str, Any], prepared: Prepared | None = None) -> Plan:
    """Say what a request would run, and why.

    Parameters
    ----------
    asked
        The request: a configuration, or nested values as in a TOML file.
    prepared
        Its data; read where it is not given.

    Raises
    ------
    ConfigError, PrivacyError
        If the settings cannot be used, or no noise meets the budget.
    DataError
        If the data cannot be read.
    """
    request = asked if isinstance(asked, SimulationConfig) else checked_config(asked)
    data = prepare(request) if prepared is None else prepared
    settings, decisions = resolve(request, data)
    coordinator = coordinator_of(settings, data, run="plan")
    terms, population, schedule = coordinator.settings.terms, data.interactions.num_users, settings.schedule
    return Plan(
        asked=request,
        settings=settings,
        decisions=decisions,
        people=population,
        items=data.interactions.num_items,
        interactions=len(data.interactions.item),
        protection=_promised(settings, coordinator),
        noise_multipliers=None if terms is None else (terms.popularity.noise_multiplier, terms.train.noise_multiplier),
        device_rounds=device_rounds(settings.privacy, schedule.rounds, population, schedule.participation),
        bytes_down=4 * coordinator.table.rows.size,
        bytes_up=4 * coordinator.example_plans()[1].update_size,
        cost=estimate(settings, data),
        if_colluding=tuple(_if_colluding(settings, coordinator, population)),
    )


def _if_colluding(config: SimulationConfig, coordinator: Coordinator, population: int) -> list[IfColluding]:
    """Account for the planned rounds with more colluders than the noise is sized for."""
    if config.delta is None or Unit.USER not in config.promises or config.privacy.noise == "seeded":
        return []
    least = cohort_of(config.privacy, population, config.schedule.participation).least_sum(config.privacy.gamma)
    popularity, train = (
        LeastSum(
            sensitivity=events_of(plan)[Unit.USER].sensitivity,
            share_variance=terms_of(plan).share_variance,
            least=least,
            enrolled=population,
        )
        for plan in coordinator.example_plans()
    )
    rounds = device_rounds(config.privacy, config.schedule.rounds, population, config.schedule.participation)
    return if_colluding([popularity] + [train] * rounds, config.delta)


def _promised(config: SimulationConfig, coordinator: Coordinator) -> Protection:
    """Say the planned guarantee with its meaning and assumptions; or that there is none."""
    label = label_of(config)
    if not config.promises or config.privacy.noise == "seeded":
        text = f"Unit {config.unit}: {label}."
        return Protection(protected=False, title="No privacy", text=text, facts={"unit": config.unit})
    events = [*events_of(coordinator.example_plans()[1]).values()]
    claims = [
        f"epsilon {promise.epsilon:g} at delta {promise.delta:g} per {promise.unit}"
        for promise in config.promises.values()
    ]
    assumptions = dict.fromkeys([*(str(each) for event in events for each in event.assumptions), PUBLIC_CATALOGUE])
    return Protection(
        protected=True,
        title=f"Planned, {label}: at most {' and '.join(claims)}",
        text=f"For all rounds together. Compared: {events[0].adjacency}. It holds if: {'; '.join(assumptions)}.",
        facts={"unit": config.unit},
    )
