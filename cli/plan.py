"""`palate plan`: what a run would be, and why; without data, what a budget, its noise or its rounds come to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate.cli.options import JsonOption, print_json
from palate.cli.settings import RUN_PANELS, with_settings
from palate.cli.terminal import note, print_grid, say
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


def _without_data(help: str, **more: Any) -> Any:
    return typer.Option(help=help, rich_help_panel=_WITHOUT_DATA, **more)


@with_settings(SimulationConfig, *RUN_PANELS)
def plan(
    asked: dict[str, Any],
    *,
    devices: Annotated[
        int | None, _without_data("Devices in the federation.", show_default=f"the cohort, or {_DEFAULT_DEVICES}")
    ] = None,
    noise_multiplier: Annotated[
        float | None, _without_data("Noise in the sum over the sensitivity, e.g. --noise-multiplier 2.")
    ] = None,
    spent_rounds: Annotated[
        int | None, _without_data("Rounds with the same noise that a device has behind it; for the rounds left.")
    ] = None,
    cohort: Annotated[int | None, _without_data("Devices asked in each round.", show_default="all")] = None,
    cap: Annotated[
        int | None, _without_data("Most rounds in which one device takes part.", show_default="all rounds")
    ] = None,
    quorum: Annotated[
        float | None, _without_data("tau: a round needs more than this share of its cohort.", show_default="0.6")
    ] = None,
    corrupt: Annotated[
        float | None,
        _without_data("gamma: share of the cohort that may collude with the server.", show_default="0.2"),
    ] = None,
    bits: Annotated[
        int | None, _without_data("Sensitivity as a power of two.", show_default=str(_DEFAULT_BITS))
    ] = None,
    sensitivity: Annotated[
        int | None, _without_data("L2 bound of a device's integer vector.", show_default=f"2^{_DEFAULT_BITS}")
    ] = None,
    num_values: Annotated[int | None, _without_data("Length of a device's vector.", show_default="any length")] = None,
    plot: Annotated[
        Path | None, _without_data("Draw central epsilon by round, to a .png or .svg file.", metavar="FILE")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Ask independent accountants too.", rich_help_panel=_WITHOUT_DATA)
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="List the settings that are plain defaults, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what a run would be: each setting with its reason, what it promises, and what it sends.

    With the options of palate simulate, and its data: the same options then run just that. Nothing is trained, and
    a protected run is planned from public numbers alone.

    With an option of the part without data, no data is read: two of --epsilon, --noise-multiplier and --rounds
    decide the third, for equal rounds at unit user.

    \b
    Examples:
      palate plan --data ml-1m --epsilon 4
      palate plan --unit none --rounds 3 --all
      palate plan --epsilon 8 --rounds 4 --devices 1000
      palate plan --noise-multiplier 2 --rounds 50
      palate plan --epsilon 8 --rounds 300 --devices 6040 --cohort 200 --cap 5 --plot budget.png
    """  # noqa: D301 - a real backspace: Click keeps the lines that follow as they are
    numbers = {
        "devices": devices,
        "noise_multiplier": noise_multiplier,
        "spent_rounds": spent_rounds,
        "cohort": cohort,
        "cap": cap,
        "tau": quorum,
        "gamma": corrupt,
        "sensitivity": _sensitivity(bits, sensitivity),
        "num_values": num_values,
    }
    given = {name: value for name, value in numbers.items() if value is not None}
    if given or plot is not None or check:
        _plan_budget(asked, given, plot=plot, check=check, as_json=as_json)
        return
    from palate.simulation.planning import plan as plan_run

    made = plan_run(asked)
    if as_json:
        print_json(made.to_dict())
    else:
        _show(made, every=every)


def _show(made: Plan, *, every: bool) -> None:
    """Print a plan: the promise, the cost, and the settings with their reasons."""
    say(str(made.protection), style="bold green" if made.protection.protected else "bold red")
    print_grid(facts_grid("", "", made.facts))
    settings = made.decisions if every else made.decided()
    rows = [(each.name, shown(each.value), str(each.source), each.reason) for each in settings]
    print_grid(text_grid("Settings", ("setting", "value", "from", "why"), rows))
    if rest := len(made.decisions) - len(settings):
        say(f"\n{rest} other settings have their defaults; --all lists them.")


def _plan_budget(
    asked: dict[str, Any], numbers: dict[str, Any], *, plot: Path | None, check: bool, as_json: bool
) -> None:
    """Answer without data: two of epsilon, noise and rounds decide the third."""
    from palate.audit.budget_plan import cross_checked, make_plan, requested
    from palate.cli.budget_plan import draw, show
    from palate.privacy.accounting.dropout import Quorum

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
    quorum = Quorum(tau=numbers.pop("tau", 0.6), gamma=numbers.pop("gamma", 0.2))
    devices = numbers.pop("devices", numbers.get("cohort", _DEFAULT_DEVICES))
    cohort = numbers.pop("cohort", devices)
    made = make_plan(requested(devices=devices, cohort=cohort, quorum=quorum, **budget, **numbers))
    if check:
        note("asking independent accountants: seconds, or a minute where epsilon is large", style="dim")
        made = cross_checked(made)
    if plot is not None:
        draw(made, plot)
        note(f"drawn: {plot}", style="dim")
    if as_json:
        print_json(made.to_dict())
    else:
        show(made)


_OF_BUDGET = {"epsilon": "epsilon", "delta": "delta", "schedule.rounds": "rounds"}
"""Settings of a run that a plan without data takes too, and what it calls them."""


def _sensitivity(bits: int | None, sensitivity: int | None) -> int | None:
    if bits is None:
        return sensitivity
    if sensitivity is not None:
        raise ConfigError(f"--bits {bits} and --sensitivity {sensitivity} say the same thing", hint="give one of them")
    if not 0 <= bits <= _MAX_BITS:
        raise ConfigError(f"bits is {bits}, a plan takes 0 to {_MAX_BITS}", hint=f"{_DEFAULT_BITS} to 14 is usual")
    return 1 << bits
