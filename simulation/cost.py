"""Estimate the cost of a run: CPU-seconds and memory, from a small model that was fitted to runs of this code.

The model counts what the code does: a pass over all interactions, the heads of score models, the values that are
clipped and noised, the ledgers, and a fit of everybody's recommender at each validation. Its constants were fitted to
runs on the demo, ML-100K and ML-1M (13 settings, CPU-seconds of a round between 0.06 and 6.2): estimates were 0.6 to
1.2 times what was measured. Updates on own items and the objective `bce` are based on one or two runs, leave-one-out
was slower then. Engines other than `vectorised` cost more.
"""

from __future__ import annotations

from dataclasses import dataclass

from palate.models.scores.registry import score_model
from palate.simulation.config import SimulationConfig
from palate.simulation.prepare import Prepared
from palate.simulation.tuning import PROBE_ROUNDS, chosen_on_validation

_MICRO = 1e-6
_PASS, _PASS_OF_COLUMN = 0.47, 0.0043
"""Microseconds for an interaction, and more for each learned column of it: the closed form and its update."""
_SAMPLE, _SAMPLE_OF_HEAD = 1.0, 2.7
"""Microseconds for a positive or a sampled negative in SGD (objective bce), and more with a head."""
_HEAD, _HEAD_OF_DEVICE = 0.64, 161.0
"""Microseconds for an interaction, and for a device, where a head is trained on top of the closed form."""
_NOISED, _NOISED_OWN = 0.0141, 0.09
"""Microseconds for a value that is clipped and rounded: of dense updates, and of those on own items, without zeros."""
_FILTERED = 0.00165
"""Microseconds for a row that the server filters, in each group and pair of columns."""
_CHARGED = 188.0
"""Microseconds for a device whose ledger is charged."""
_LEDGERS = 0.41
"""Seconds of a round for the ledgers together."""
_FITTED, _FITTED_OF_PAIR = 100.0, 0.015
"""Microseconds for a device at a validation, and more for each pair of its table's columns."""
_FIXED_SECONDS = 0.5
_HEAD_ITEMS = 0.22
"""Share of the items that a run on popular items learns, as gowalla had it; the noisy popularity decides."""
_PROBES = 3
"""Ridges that a search tries as a rule."""
_MEMORY_MB, _BYTES_OF_INTERACTION, _BYTES_OF_CELL = 500.0, 200, 80


@dataclass(frozen=True)
class Cost:
    """An estimate of what a run costs, without references and the reading of data.

    Attributes
    ----------
    cpu_seconds
        Of all rounds, validations and the final ranking; within a factor of two of the measurements where it was
        checked.
    cpu_seconds_of_round
        Of one training round.
    memory_mb
        Peak resident memory, in MB (10**6 bytes).
    """

    cpu_seconds: float
    cpu_seconds_of_round: float
    memory_mb: float

    @property
    def words(self) -> str:
        """The estimate in a line."""
        return (
            f"about {_duration(self.cpu_seconds)} of processor time and {self.memory_mb / 1000:.1f} GB of memory "
            "(an estimate, without references and reading)"
        )


def estimate(settings: SimulationConfig, data: Prepared) -> Cost:
    """Estimate the cost of a run.

    Parameters
    ----------
    settings
        The settings that run.
    data
        Its data; only sizes are used.
    """
    schedule, training = settings.schedule, settings.training
    people, num_items = data.interactions.num_users, data.interactions.num_items
    interactions = len(data.interactions.item)
    devices, seen = people * schedule.participation, interactions * schedule.participation
    learned = seen * (_PASS + _PASS_OF_COLUMN * schedule.dim)
    has_head = score_model(training.model, training.objective).residual_head
    if training.objective == "bce":
        per_sample = _SAMPLE + _SAMPLE_OF_HEAD * has_head
        local = seen * (1 + training.negatives) * training.epochs * per_sample
    else:
        local = learned + has_head * training.epochs * (_HEAD * seen + _HEAD_OF_DEVICE * devices)
    noise = ledgers = 0.0
    if settings.promises:
        rows = num_items * (_HEAD_ITEMS if schedule.head else 1.0)
        noise = schedule.dim * (_NOISED_OWN * seen if training.own_items_only else _NOISED * devices * rows)
        noise += _FILTERED * rows * settings.optimiser.groups * schedule.dim**2
        ledgers = _LEDGERS + _MICRO * _CHARGED * devices
    a_round = _MICRO * (local + noise) + ledgers
    columns = schedule.dim + len(data.column_names)
    validation = _MICRO * people * (_FITTED + _FITTED_OF_PAIR * columns**2)
    validations = schedule.rounds / settings.evaluate_every + 1
    tuning = bool(chosen_on_validation(settings, data)) * _PROBES * PROBE_ROUNDS * _MICRO * learned
    cells = num_items * columns
    return Cost(
        cpu_seconds=_FIXED_SECONDS + tuning + ledgers + schedule.rounds * a_round + validations * validation,
        cpu_seconds_of_round=a_round,
        memory_mb=_MEMORY_MB + (_BYTES_OF_INTERACTION * interactions + _BYTES_OF_CELL * cells) / 1e6,
    )


def _duration(seconds: float) -> str:
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.2g} s"
