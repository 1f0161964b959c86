"""What would run, and why: the one place where a request of a simulation becomes the settings that run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from palate.privacy.charging import Promise
from palate.privacy.mechanisms.budget import RunTerms
from palate.privacy.mechanisms.registry import MECHANISMS
from palate.server.resolving import Choice, PublicNumbers, Setting, Source, choices, defaults_of
from palate.server.settings import cohort_size
from palate.server.values import asked_in, flat, merge, nested, values_of
from palate.simulation.config import SimulationConfig, checked_config
from palate.simulation.prepare import EMBEDDING, NO_TEXT, Prepared, prepare, way_to_read
from palate.simulation.protection import device_rounds
from palate.simulation.tuning import is_tuned

_NOT_SHOWN = ("auto", "tune")
"""Settings that say what is to be decided, and are used up when it is."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a request runs.

    Attributes
    ----------
    asked
        The request; a run that is given a plan runs this, and comes to the same settings.
    config
        The settings that run.
    settings
        Every setting with its value, source and reason, in the order of docs/configuration.md.
    people, items, interactions
        Size of the data.
    protection
        In words, what protects the people.
    promises
        The guarantees, each for all rounds together; empty without protection.
    terms
        The noise that keeps them, in the popularity round and in each training round; None without protection.
    device_rounds
        Training rounds of one device, at most.
    """

    asked: SimulationConfig
    config: SimulationConfig
    settings: tuple[Setting, ...]
    people: int
    items: int
    interactions: int
    protection: str
    promises: tuple[Promise, ...]
    terms: RunTerms | None
    device_rounds: int

    def decided(self) -> tuple[Setting, ...]:
        """Return the settings that are not defaults: those to read."""
        return tuple(setting for setting in self.settings if setting.source is not Source.DEFAULT)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        values = flat(self.config.model_dump(mode="json"))
        return {
            "data": {"people": self.people, "items": self.items, "interactions": self.interactions},
            "settings": {
                each.name: {"value": values.get(each.name), "source": str(each.source), "reason": each.reason}
                for each in self.settings
            },
            "protection": self.protection,
            "promises": [
                {"unit": str(each.unit), "epsilon": each.epsilon, "delta": each.delta} for each in self.promises
            ],
            "device_rounds": self.device_rounds,
            "noise_multipliers": None
            if self.terms is None
            else {"popularity": self.terms.popularity.noise_multiplier, "train": self.terms.train.noise_multiplier},
        }


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
    config, settings = resolve(request, data)
    population = data.interactions.num_users
    return Plan(
        asked=request,
        config=config,
        settings=settings,
        people=population,
        items=data.interactions.num_items,
        interactions=len(data.interactions.item),
        protection=MECHANISMS[config.unit].label,
        promises=tuple(config.promises.values()),
        terms=config.terms(population=population),
        device_rounds=device_rounds(config.privacy, config.schedule.rounds, population, config.schedule.participation),
    )


def resolve(request: SimulationConfig, data: Prepared) -> tuple[SimulationConfig, tuple[Setting, ...]]:
    """Return the configuration that runs, and each of its settings with its reason; it resolves to itself.

    What a run without protection chooses on validation data is chosen when it begins (`palate.simulation.tuning`).
    """
    found = {name: (Source.DATA, reason, value) for name, (value, reason) in _from_data(request, data).items()}
    config = _with(request, {name: value for name, (_, _, value) in found.items()})
    if config.auto and config.epsilon is not None and config.delta is not None:
        numbers = PublicNumbers(
            cohort=cohort_size(data.interactions.num_users, config.schedule.participation),
            num_items=data.interactions.num_items,
            content=data.content.columns.shape[1] > 0,
        )
        chosen = choices(config, config.auto, epsilon=config.epsilon, delta=config.delta, numbers=numbers)
        found |= {name: (Source.PLANNED, choice.reason, choice.value) for name, choice in chosen.items()}
        config = _with(config, {name: choice.value for name, choice in chosen.items()})
    config = config.model_copy(update={"auto": ()})
    asked, of_unit = flat(asked_in(request)), flat(defaults_of(request.unit))
    settings = []
    for name, value in values_of(config).items():
        if name in _NOT_SHOWN:
            continue
        if name in found:
            source, reason, _ = found[name]
        elif name == "training.regularisation" and is_tuned(config, data):
            source, reason = Source.DATA, "chosen on validation data when the run begins, starting from this value"
        elif name in asked:
            source, reason = Source.ASKED, "you asked for it"
        elif name in of_unit:
            source, reason = Source.UNIT, _reason_of_unit(request.unit, name)
        else:
            source, reason = Source.DEFAULT, "the default"
        settings.append(Setting(name, value, source, reason))
    return config, tuple(settings)


def _from_data(request: SimulationConfig, data: Prepared) -> dict[str, Choice]:
    """Return what the data and the machine decide: who reads texts, and whether anything is recent."""
    found: dict[str, Choice] = {}
    text = way_to_read(request.content)
    if text != request.content.text:  # whoever resumes reads in the same way
        installed = "" if text == EMBEDDING else "not "
        reason = "texts are not used" if text == NO_TEXT else f"the sentence encoder is {installed}installed"
        found["content.text"] = Choice(text, reason)
    if not data.interactions.has_time:
        timeless = Choice(float("inf"), "the data has no times, so that nothing is recent")
        found |= {"training.recency_half_life": timeless, "training.serving_half_life": timeless}
    return found


def _with(config: SimulationConfig, changes: Mapping[str, Any]) -> SimulationConfig:
    """Return a configuration with settings changed, checked as a whole."""
    values = merge(config.model_dump(), nested(changes))
    return SimulationConfig.model_validate(values)


def _reason_of_unit(unit: str, name: str) -> str:
    usual = SimulationConfig(unit="none")
    value = values_of(usual)[name]
    instead = "" if value is None else f", in place of {value}"
    return f"unit {unit} uses it{instead}"


def in_words(settings: Sequence[Setting]) -> str:
    """Say in one line what was planned from public numbers; empty where nothing was."""
    planned = [f"{each.name} {_short(each.value)}" for each in settings if each.source is Source.PLANNED and each.value]
    return f"planned from the budget and the size of the data: {', '.join(planned)}" if planned else ""


def _short(value: Any) -> str:
    return "true" if value is True else f"{value:.3g}" if isinstance(value, float) else str(value)
