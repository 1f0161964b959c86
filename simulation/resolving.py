"""From the configuration that was asked for to the one that runs: what public numbers, the data and the machine decide.

A protected run is planned from the size of the federation and the budget. Without a known order nothing is recent.
What a run without protection chooses on validation data is chosen when it begins (`palate.simulation.tuning`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from palate.server.resolving import Choice, PublicNumbers, Setting, Source, choices, defaults, defaults_of
from palate.server.settings import cohort_size
from palate.server.values import asked_in, flat, merge, nested, values_of
from palate.simulation.config import SimulationConfig
from palate.simulation.prepare import EMBEDDING, NO_TEXT, Prepared, way_to_read
from palate.simulation.tuning import RIDGE, WEIGHTS, chosen_on_validation

_NOT_SHOWN = ("auto", "tune")
"""Settings that request a decision; they are cleared once it is made."""
_TUNED = {
    RIDGE: "chosen on validation data when the run begins, starting from the length of histories",
    WEIGHTS: "chosen on validation data when the run begins: as in training, or as 1/(1 + age)",
}


def resolve(request: SimulationConfig, data: Prepared) -> tuple[SimulationConfig, tuple[Setting, ...]]:
    """Return the configuration that runs, and each of its settings with its reason; it resolves to itself."""
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
    settings, tuned = [], chosen_on_validation(config, data)
    for name, value in values_of(config).items():
        if name in _NOT_SHOWN:
            continue
        if name in found:
            source, reason, _ = found[name]
        elif name in tuned:
            source, reason = Source.DATA, _TUNED[name]
        elif name in asked:
            source, reason = Source.ASKED, "asked for"
        elif name in of_unit:
            source, reason = Source.UNIT, _reason_of_unit(request.unit, name)
        else:
            source, reason = Source.DEFAULT, "default"
        settings.append(Setting(name, value, source, reason))
    return config, tuple(settings)


def _from_data(request: SimulationConfig, data: Prepared) -> dict[str, Choice]:
    """Return what the data and the machine decide: who reads texts, and whether anything is recent."""
    found: dict[str, Choice] = {}
    text = way_to_read(request.content)
    if text != request.content.text:  # a resumed run reads in the same way
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
    own, plain = (defaults(SimulationConfig, each)[name] for each in (unit, "none"))
    said = "" if plain is None or plain == own else f"; without protection it is {shown(plain)}"
    return f"default of unit {unit}{said}"


def in_words(settings: Sequence[Setting]) -> str:
    """Say in one line what was planned from public numbers; empty where nothing was."""
    planned = [f"{each.name} {shown(each.value)}" for each in settings if each.source is Source.PLANNED and each.value]
    return f"planned from the budget and the size of the data: {', '.join(planned)}" if planned else ""


def shown(value: Any) -> str:
    """Return a value as short text."""
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.3g}" if isinstance(value, float) else str(value)
