"""How `palate plan` shows a budget planned without data: tables, and a curve of epsilon by round."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from palate.audit.budget_plan import NOTICE, Plan
from palate.audit.findings import accountant_grid, counted, meaning_grid
from palate.cli.terminal import Line
from palate.privacy.accounting.guarantee import LOCAL_WARNING, round_up
from palate.simulation.report.tables import Grid, facts_grid, text_grid

_PLOT_POINTS = 300


def draw(made: Plan, path: Path) -> None:
    """Draw central epsilon by round, to a .png or .svg file."""
    from palate.simulation.report.drawing import to_file
    from palate.simulation.report.figures import budget_figure

    last = made.rounds
    stride = max(1, last // _PLOT_POINTS)
    # The cap's round is where the curve bends, so it is drawn whatever the stride.
    counts = sorted({*range(1, last + 1, stride), made.most_rounds, last})
    promised = made.promised
    adjacency = promised.adjacency.partition(":")[0]
    title = (
        f"Central epsilon by round, per {promised.unit} ({adjacency}), delta {promised.delta:g}\n"
        f"{promised.accountant}; amplification: {promised.amplification}"
    )
    epsilons = [row.central for row in made.costs_at(counts)]
    to_file(budget_figure(counts, epsilons, target=made.request.epsilon, title=title), path)


def lines_of(made: Plan) -> Iterator[Line]:
    """Show the answer, and what follows from it."""
    yield NOTICE, "bold red"
    yield f"\n{_headline(made)}", "bold"
    yield from made.notes
    yield from _grids(made)


def _headline(made: Plan) -> str:
    request, promised = made.request, made.promised
    noise = round_up(made.event.noise_multiplier)
    claim = f"at delta {request.delta:g} per {promised.unit}"
    rounds = counted(made.rounds, "round")
    if request.question == "noise":
        return f"Epsilon {request.epsilon:g} {claim} over {rounds} needs noise multiplier {noise}."
    if request.question == "cost":
        return f"Epsilon {round_up(promised.epsilon)} {claim} is the cost of {rounds} with noise multiplier {noise}."
    after = f" after {request.spent_rounds:,} spent" if request.spent_rounds else ""
    budget = f"of epsilon {request.epsilon:g} {claim}{after}, with noise multiplier {noise}"
    if made.rounds_left:
        return f"{counted(made.rounds_left, 'round')} of one device left {budget}."
    one = "" if request.spent_rounds else f" One round costs {round_up(promised.epsilon)}."
    return f"No round is left {budget}.{one}"


def _grids(made: Plan) -> list[Grid]:
    """Lay out the plan, what its epsilons mean, what is spent by when, and what dropouts do to the noise."""
    request, quorum, event, promised = made.request, made.request.quorum, made.event, made.promised
    capped = request.cap is not None
    part = f"at most {made.most_rounds:,} (cap {request.cap:,})" if capped else "all"
    length = "any length" if event.num_values is None else f"{event.num_values:,} values"
    facts = {
        "noise multiplier": round_up(event.noise_multiplier),
        "rounds": f"{made.rounds:,}; a device may take part in {part}",
        "devices": f"{request.devices:,}, {request.cohort:,} asked in each round",
        "quorum": f"more than {quorum.tau:g}: {quorum.survivors_needed(request.cohort):,} survivors; "
        f"up to {quorum.gamma:g} corrupt; noise sized for {made.honest_survivors:,} honest shares",
        "vector": f"integers with L2 norm up to {event.sensitivity:,}, {length}",
    }
    spent = [("central", promised, f"Promised to everybody: {counted(made.most_rounds, 'round')}.")]
    likely = made.likely_rounds
    if likely < made.most_rounds:
        words = f"Information: {counted(likely, 'round')}, the busiest device of a typical run with random cohorts."
        spent.append(("likely", made.likely, words))
    spent.append(("local", made.local, f"{LOCAL_WARNING} Assumes nothing but the device's own noise."))
    by_round = [
        [f"{row.round:,}", *([f"{row.device_rounds:,}"] if capped else []), round_up(row.central), round_up(row.local)]
        for row in made.by_round
    ]
    dropouts = [
        (f"{dropout:.0%}", "the round is abandoned" if inflation is None else f"{inflation:.2f} times the planned")
        for dropout, inflation in made.std_inflation().items()
    ]
    grids = [
        facts_grid("The plan", "", facts),
        meaning_grid(promised),
        text_grid(
            "What is spent at the end",
            ("", "epsilon", ""),
            [(name, round_up(found.epsilon), words) for name, found, words in spent],
        ),
        text_grid(
            "Epsilon by round, for a device that takes part whenever it may",
            ("round", *(["rounds of the device"] if capped else []), "central epsilon", "local epsilon"),
            by_round,
        ),
        text_grid(
            "Noise in the sum when devices drop out, all of them honest", ("dropouts", "standard deviation"), dropouts
        ),
    ]
    if promised.cross_checks:
        grids.append(accountant_grid(promised))
    return grids
