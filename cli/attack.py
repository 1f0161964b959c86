"""`palate audit attack`: does the mechanism's own code keep its claim against an attacker who knows everybody else?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palate.audit.attack import findings
from palate.audit.attack.plan import Game, plan_for, plan_of_run
from palate.audit.attack.verdict import attack as run_attack
from palate.audit.opening import open_source
from palate.cli.terminal import Answer, answering, watched
from palate.errors import ConfigError

_DEFAULT_DEVICES, _DEFAULT_DELTA = 2500, 1e-5
_GAME = Game()


KeyOption = Annotated[
    str | None,
    typer.Option(
        "--key",
        help="Public key, 64 hexadecimal digits or a file with them.",
        metavar="HEX|FILE",
        show_default="public.key in the ledger's folder, which proves less",
    ),
]
HtmlOption = Annotated[Path | None, typer.Option("--html", help="Also write an HTML page, e.g. --html audit.html.")]


@answering
def attack(
    run: Annotated[
        str | None,
        typer.Argument(help="Run folder, or its name under runs/: attack the rounds in its ledger.", metavar="[RUN]"),
    ] = None,
    *,
    epsilon: Annotated[float | None, typer.Option(help="Without a run: budget to size noise for, e.g. 8.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Without a run: rounds of that budget.", min=1)] = None,
    delta: Annotated[
        float | None,
        typer.Option(help="Without a run: failure probability of the guarantee.", show_default=f"{_DEFAULT_DELTA:g}"),
    ] = None,
    devices: Annotated[
        int | None, typer.Option(help="Without a run: devices asked in a round.", show_default=str(_DEFAULT_DEVICES))
    ] = None,
    canaries: Annotated[int, typer.Option(help="Invented people to look for, in total.")] = _GAME.canaries,
    num_values: Annotated[int, typer.Option(help="Length of a contribution.")] = _GAME.num_values,
    repeats: Annotated[
        int | None, typer.Option(help="Times to play all rounds.", show_default="until there are as many canaries")
    ] = None,
    key: KeyOption = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Seed of canaries and coins; noise is always fresh.", show_default="from the system"),
    ] = None,
    html: HtmlOption = None,
) -> Answer:
    """Attack the mechanism with canaries, test its noise, and compare with what is claimed; exit code 7 if it fails.

    Examples: palate audit attack runs/demo; palate audit attack --epsilon 8 --rounds 20
    """
    game = Game(canaries=canaries, num_values=num_values, repeats=repeats)
    given = {"--epsilon": epsilon, "--rounds": rounds, "--delta": delta, "--devices": devices}
    if run is not None:
        if superfluous := [name for name, value in given.items() if value is not None]:
            raise ConfigError(
                f"{superfluous[0]} is given together with a run, whose ledger already says it",
                hint=f"leave {superfluous[0]} out",
            )
        plan = plan_of_run(open_source(run, key), game)
    elif key is not None:
        raise ConfigError(
            "--key is given without a run whose ledger it signed", hint="name the run, or leave --key out"
        )
    elif epsilon is None or rounds is None:
        raise ConfigError(
            f"neither a run nor {'--epsilon' if epsilon is None else '--rounds'} is given",
            hint="for example palate audit attack runs/demo, or palate audit attack --epsilon 8 --rounds 20",
        )
    else:
        plan = plan_for(
            epsilon=epsilon,
            delta=_DEFAULT_DELTA if delta is None else delta,
            rounds=rounds,
            devices=_DEFAULT_DEVICES if devices is None else devices,
            game=game,
        )
    bar, watch = watched("attacking round", plan.steps)
    try:
        result = run_attack(plan, seed=seed, watch=watch)
    finally:
        bar.stop()
    if html is not None:
        from palate.audit.attack.page import attack_page
        from palate.simulation.report.rendering import save

        save(attack_page(result), html)
    lines = (
        (findings.headline(result), "bold red" if result.violations else "bold"),
        findings.LIMITS,
        findings.epsilon_grid(result),
        findings.check_grid(result),
        (f"\n{findings.setting(result)}", "dim"),
    )
    return Answer(result.to_dict(), lines, check=result.require_kept)
