"""How `palate plan` shows a budget planned without data: tables, and a curve of epsilon by round."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from palate.audit.budget_plan import NOTICE, Plan
from palate.audit.plan_request import Question
from palate.privacy.accounting.guarantee import LOCAL_WARNING, Guarantee, round_up

_PLOT_POINTS = 300


def draw(made: Plan, path: Path) -> None:
    """Draw central epsilon by round, to a .png or .svg file."""
    from palate.simulation.report.budget_chart import save_budget_curve

    last = made.schedule.rounds
    stride = max(1, last // _PLOT_POINTS)
    # The cap's round is where the curve bends, so it is drawn whatever the stride.
    counts = sorted({*range(1, last + 1, stride), made.schedule.most_rounds, last})
    promised = made.cost.promised
    save_budget_curve(
        counts,
        [row.central for row in made.costs_at(counts)],
        path,
        title=f"Central epsilon by round, per {promised.unit} ({_short(promised)}), delta {promised.delta:g}\n"
        f"{promised.accountant}; amplification: {promised.amplification}",
        target=made.request.epsilon,
    )


def show(made: Plan, console: Console) -> None:
    """Print the answer, and what follows from it."""
    console.print(NOTICE, style="bold red", highlight=False, markup=False)
    console.print(f"\n{_headline(made)}", style="bold", highlight=False, markup=False)
    for note in made.notes:
        console.print(note, highlight=False, markup=False)
    for title, table in (
        ("The plan", _facts(made)),
        ("Every epsilon below", _meaning(made.cost.promised)),
        ("What is spent at the end", _figures(made)),
        ("Epsilon by round, for a device that takes part whenever it may", _by_round(made)),
        ("Noise in the sum when devices drop out, all of them honest", _dropouts(made)),
    ):
        console.print(f"\n{title}", style="bold", highlight=False, markup=False)
        console.print(table, highlight=False)
    if made.cost.promised.cross_checks:
        console.print("\nOther accountants, about Gaussian noise as wide (information, not the claim)", style="bold")
        checks = _table("accountant", "epsilon")
        for found in made.cost.promised.cross_checks:
            checks.add_row(found.accountant, round_up(found.epsilon))
        console.print(checks, highlight=False)


def _headline(made: Plan) -> str:
    request, promised = made.request, made.cost.promised
    noise = round_up(made.event.noise_multiplier)
    claim = f"at delta {request.delta:g} per {promised.unit}"
    rounds = _rounds(made.schedule.rounds)
    if request.question is Question.NOISE:
        return f"Epsilon {request.epsilon:g} {claim} over {rounds} needs noise multiplier {noise}."
    if request.question is Question.COST:
        return f"Epsilon {round_up(promised.epsilon)} {claim} is the cost of {rounds} with noise multiplier {noise}."
    after = f" after {request.spent_rounds:,} spent" if request.spent_rounds else ""
    budget = f"of epsilon {request.epsilon:g} {claim}{after}, with noise multiplier {noise}"
    if made.rounds_left:
        return f"{_rounds(made.rounds_left)} of one device left {budget}."
    one = "" if request.spent_rounds else f" One round costs {round_up(promised.epsilon)}."
    return f"No round is left {budget}.{one}"


def _facts(made: Plan) -> Table:
    schedule, quorum, event = made.schedule, made.request.quorum, made.event
    part = "a device may take part in all"
    if schedule.cap is not None:
        part = f"a device takes part in at most {schedule.most_rounds:,} (cap {schedule.cap:,})"
    table = _table("", "", header=False)
    table.add_row("noise multiplier", round_up(event.noise_multiplier))
    table.add_row("rounds", f"{schedule.rounds:,}; {part}")
    table.add_row("devices", f"{schedule.devices:,}, {schedule.cohort:,} asked in each round")
    table.add_row(
        "quorum",
        f"more than {quorum.tau:g}: {quorum.survivors_needed(schedule.cohort):,} survivors; "
        f"up to {quorum.gamma:g} corrupt; noise sized for {made.honest_survivors:,} honest shares",
    )
    length = "any length" if event.num_values is None else f"{event.num_values:,} values"
    table.add_row("vector", f"integers with L2 norm up to {event.sensitivity:,}, {length}")
    return table


def _meaning(guarantee: Guarantee) -> Table:
    table = _table("", "", header=False)
    table.add_row("unit", guarantee.unit)
    table.add_row("delta", f"{guarantee.delta:g}")
    table.add_row("adjacency", guarantee.adjacency)
    table.add_row("accountant", guarantee.accountant)
    table.add_row("amplification", guarantee.amplification)
    table.add_row("assuming", ";\n".join(guarantee.assumptions))
    return table


def _figures(made: Plan) -> Table:
    table = _table("", "epsilon", "")
    table.columns[2].justify = "left"
    cost, likely_rounds = made.cost, max(1, made.cost.likely_rounds)
    promised = f"Promised to everybody: {_rounds(made.schedule.most_rounds)}."
    table.add_row("central", round_up(cost.promised.epsilon), promised)
    if likely_rounds < made.schedule.most_rounds:
        likely = f"Information: {_rounds(likely_rounds)}, the busiest device of a typical run with random cohorts."
        table.add_row("likely", round_up(cost.likely.epsilon), likely)
    alone = f"{LOCAL_WARNING} Assumes nothing but the device's own noise."
    table.add_row("local", round_up(made.local.epsilon), alone)
    return table


def _rounds(count: int) -> str:
    return f"{count:,} round" + ("" if count == 1 else "s")


def _short(guarantee: Guarantee) -> str:
    return guarantee.adjacency.partition(":")[0]


def _by_round(made: Plan) -> Table:
    capped = made.schedule.cap is not None
    table = _table("round", *(["rounds of the device"] if capped else []), "central epsilon", "local epsilon")
    for row in made.by_round:
        own = [f"{row.device_rounds:,}"] if capped else []
        table.add_row(f"{row.round:,}", *own, round_up(row.central), round_up(row.local))
    return table


def _dropouts(made: Plan) -> Table:
    table = _table("dropouts", "standard deviation")
    for dropout, inflation in made.std_inflation().items():
        shown = "the round is abandoned" if inflation is None else f"{inflation:.2f} times the planned"
        table.add_row(f"{dropout:.0%}", shown)
    return table


def _table(*columns: str, header: bool = True) -> Table:
    table = Table(*columns, box=None, pad_edge=False, show_header=header)
    if header:
        for column in table.columns[1:]:
            column.justify = "right"
    return table
