"""`palate plan`: what a run would be, and why; without data, what a budget, its noise or its rounds come to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate.audit.budget_plan import PlanRequest, cross_checked, make_plan, requested
from palate.cli.budget_plan import draw, lines_of
from palate.cli.fields import option, replacing
from palate.cli.settings import RUN_PANELS, with_settings
from palate.cli.terminal import Answer, Line, answering, note
from palate.errors import ConfigError
from palate.server.values import flat
from palate.simulation.config import SimulationConfig
from palate.simulation.report.tables import facts_grid, text_grid
from palate.simulation.resolving import shown

if TYPE_CHECKING:
    from palate.simulation.planning import Plan

_DEFAULT_DEVICES, _DEFAULT_BITS, _MAX_BITS = 1000, 12, 30
_PLOT_SUFFIXES = (".png", ".svg")
_WITHOUT_DATA = "Without data"
_NUMBERS = {
    "devices": f"the cohort, or {_DEFAULT_DEVICES}",
    "noise_multiplier": "",
    "spent_rounds": "",
    "cohort": "all",
    "cap": "all rounds",
    "sensitivity": f"2^{_DEFAULT_BITS}",
    "num_values": "any length",
    "tau": "0.6",
    "gamma": "0.2",
}
"""Fields of a request that have an option, and what to say of their defaults."""
_SPELLINGS = {"tau": "--quorum", "gamma": "--corrupt"}


def _without_data(help: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=_WITHOUT_DATA, **more)


@with_settings(SimulationConfig, RUN_PANELS)
@replacing(
    "numbers",
    [
        option(
            name,
            PlanRequest.model_fields[name],
            spelling=_SPELLINGS.get(name, ""),
            default=default,
            panel=_WITHOUT_DATA,
        )
        for name, default in _NUMBERS.items()
    ],
    lambda values: {name: value for name, value in values.items() if value is not None},
)
@answering
def plan(
    asked: dict[str, Any],
    *,
    numbers: dict[str, Any],
    bits: Annotated[
        int | None, _without_data("Sensitivity as a power of two.", show_default=str(_DEFAULT_BITS))
    ] = None,
    plot: Annotated[
        Path | None, _without_data("Draw central epsilon by round, to a .png or .svg file.", metavar="FILE")
    ] = None,
    check: Annotated[bool, _without_data("Ask independent accountants too.", "--check")] = False,
    every: Annotated[bool, typer.Option("--all", help="Also list settings that have their default value.")] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain", help="Also say what epsilon is about, when it holds, and what is left if devices collude."
        ),
    ] = False,
) -> Answer:
    """Show what would run: each setting with its reason, the privacy guarantee, and what a device sends.

    It takes the options of palate simulate; with the same options, palate simulate then runs exactly this plan. Nothing
    is trained, and a protected run is planned from public numbers only.

    With an option under 'Without data', no data is read: two of --epsilon, --noise-multiplier and --rounds decide the
    third, for equal rounds at unit user.

    For example:
      palate plan --data ml-1m --epsilon 4
      palate plan --unit none --rounds 3 --all
      palate plan --epsilon 8 --rounds 4 --devices 1000
      palate plan --noise-multiplier 2 --rounds 50
      palate plan --epsilon 8 --rounds 300 --devices 6040 --cohort 200 --cap 5 --plot budget.png
    """
    if bits is not None:
        numbers["sensitivity"] = _power_of_two(bits, numbers.get("sensitivity"))
    if numbers or plot is not None or check:
        return _plan_budget(asked, numbers, plot=plot, check=check)
    from palate.simulation.planning import plan as plan_run

    made = plan_run(asked)
    return Answer(made.to_dict(), _lines(made, every=every, explain=explain))


def _lines(made: Plan, *, every: bool, explain: bool) -> Iterator[Line]:
    """Lines of a plan: the guarantee, the cost, and the settings with their reasons."""
    guarantee = made.protection
    whole = explain or not guarantee.protected
    words = str(guarantee) if whole else f"{guarantee.title}, for all rounds together"
    yield words, "bold green" if guarantee.protected else "bold red"
    if explain and made.colluders:
        yield f"{made.colluders[0].upper()}{made.colluders[1:]}."
    yield facts_grid("", "", made.facts)
    settings = made.decisions if every else made.decided()
    rows = [(each.name, shown(each.value), str(each.source), each.reason) for each in settings]
    yield text_grid("Settings", ("setting", "value", "from", "why"), rows)
    if rest := len(made.decisions) - len(settings):
        yield f"\n{rest} other settings have their defaults; --all lists them."


def _plan_budget(asked: dict[str, Any], numbers: dict[str, Any], *, plot: Path | None, check: bool) -> Answer:
    """Answer without data: two of epsilon, noise and rounds decide the third."""
    known = flat(asked)
    budget = {name: known.pop(setting) for setting, name in _OF_BUDGET.items() if setting in known}
    if known:
        raise ConfigError(
            f"{next(iter(known))} says nothing about a plan without data",
            hint=f"leave it out, or the options under {_WITHOUT_DATA!r} of palate plan --help",
        )
    if plot is not None and plot.suffix.lower() not in _PLOT_SUFFIXES:
        raise ConfigError(
            f"--plot {plot.name} ends in neither {' nor '.join(_PLOT_SUFFIXES)}", hint="for example --plot budget.png"
        )
    devices = numbers.pop("devices", numbers.get("cohort", _DEFAULT_DEVICES))
    cohort = numbers.pop("cohort", devices)
    made = make_plan(requested(devices=devices, cohort=cohort, **budget, **numbers))
    if check:
        note("asking independent accountants: seconds, or a minute where epsilon is large", style="dim")
        made = cross_checked(made)
    if plot is not None:
        draw(made, plot)
        note(f"drawn: {plot}", style="dim")
    return Answer(made.to_dict(), lines_of(made))


_OF_BUDGET = {"epsilon": "epsilon", "delta": "delta", "schedule.rounds": "rounds"}
"""Settings of a run that a plan without data takes too, and what it calls them."""


def _power_of_two(bits: int, sensitivity: int | None) -> int:
    if sensitivity is not None:
        raise ConfigError(f"--bits {bits} and --sensitivity {sensitivity} say the same thing", hint="give one of them")
    if not 0 <= bits <= _MAX_BITS:
        raise ConfigError(f"bits is {bits}, a plan takes 0 to {_MAX_BITS}", hint=f"{_DEFAULT_BITS} to 14 is usual")
    return 1 << bits
