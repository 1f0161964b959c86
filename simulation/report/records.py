"""Typed records of a run folder's JSON, one class per object: docs/formats/run-folder.md.

Keys that a later version adds are ignored. Missing values, wrong types and numbers that are not finite are refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from palate.models.metrics import RankingMetrics
from palate.privacy.accounting.guarantee import CrossCheck, round_up
from palate.simulation.evaluation import Summary


class _Record(BaseModel):
    """Read-only, and without NaN or infinity: JSON has neither."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


def _as_fields(value: Any) -> Any:
    """Turn published names, such as "hr@10", back into the fields of `RankingMetrics`, at any depth."""
    if isinstance(value, list):
        return [_as_fields(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    if "intervals" in value:
        return RankingMetrics.fields_of(value)
    return {name: _as_fields(inner) for name, inner in value.items()}


ReadSummary = Annotated[Summary, BeforeValidator(_as_fields)]
"""What `Summary.to_dict` wrote, as a `Summary` again."""


class _Measured(_Record):
    """Summaries of validation and test, None where there is none."""

    validation: ReadSummary | None = None
    test: ReadSummary | None = None

    def of(self, part: str) -> Summary | None:
        """Summary of "validation" or "test"."""
        return self.validation if part == "validation" else self.test


class Parts(_Measured):
    """The run's own summaries; validation is None where nobody has a validation item."""

    validation: ReadSummary | None
    test: ReadSummary


class BaselineResult(_Measured):
    """One baseline of the same run, or why it was left out."""

    label: str
    citation: str = ""
    skipped: str | None = None
    settings: dict[str, float] = {}
    cpu_seconds: float = 0.0

    @model_validator(mode="after")
    def _ran_or_says_why(self) -> BaselineResult:
        if self.test is None and not self.skipped:
            raise ValueError("neither test results nor a reason for skipping")
        return self


class Hidden(_Record):
    """Test results of the same run where nobody's newest items are known: what recency is worth."""

    newest: int
    test: ReadSummary


class Difference(_Record):
    """A mean difference over people, with its standard error and 95% interval."""

    value: float
    se: float
    low: float
    high: float


class Gain(_Record):
    """Test metrics of the run minus those of the control that knows the same and learns nothing together."""

    control: str
    sampled: dict[str, Difference]
    full: dict[str, Difference]

    def of(self, ranking: str) -> dict[str, Difference]:
        """Differences under "sampled" or "full", by the names of metrics."""
        return self.sampled if ranking == "sampled" else self.full


class Dataset(_Record):
    """Size of the data after cleaning, and how many items a sampled ranking has."""

    users: int
    items: int
    interactions: int
    density: float
    has_time: bool
    candidates: int


class CpuSeconds(_Record):
    """Processor time of the run."""

    total: float
    per_round_median: float


class DeviceBytes(_Record):
    """Traffic of one device in one round."""

    down: int
    up: int


class NoiseMultipliers(_Record):
    """Noise multipliers: standard deviation of the noise of a round, divided by its sensitivity."""

    popularity: float
    train: float


class LocalClaim(_Record):
    """Guarantee of a device's own message by itself."""

    epsilon: float
    delta: float


class Claim(_Record):
    """An epsilon for one unit, with its meaning and assumptions."""

    epsilon: float
    delta: float
    unit: str
    adjacency: str
    accountant: str
    amplification: str
    assumptions: tuple[str, ...]
    cross_checks: tuple[CrossCheck, ...]
    target_epsilon: float
    noise_multipliers: NoiseMultipliers
    local: LocalClaim | None

    def __str__(self) -> str:
        """Say the claim in one line; epsilon is rounded up."""
        return f"epsilon {round_up(self.epsilon)} at delta {self.delta:g} per {self.unit}"


class GuaranteeRecord(Claim):
    """The guarantee of a run: a claim, its mechanism, and the same release's claims for other units."""

    mechanism: str
    device_rounds: int
    clip_norm: float
    sensitivity: int
    honest_shares: int
    roster_size: int
    further: tuple[Claim, ...]
    notes: tuple[str, ...] = ()

    @property
    def facts(self) -> dict[str, str]:
        """Return everything that is needed to read the claim, by name."""
        noise, rounds = self.noise_multipliers, self.device_rounds
        shares = "; each device's own"
        if self.local is not None:
            shares = f"; sized for {self.honest_shares:,} honest devices of {self.roster_size:,}"
        checks = ", ".join(f"{check.accountant} {check.epsilon:.3f}" for check in self.cross_checks)
        found = {"guarantee": str(self)}
        for further in self.further:
            found["and by each device alone"] = str(further)
        found |= {
            "compared worlds": self.adjacency,
            "proven by": self.accountant,
            "cross-checked, noise as Gaussian": checks,
            "amplification": self.amplification,
            "mechanism": self.mechanism,
            "noise": f"multiplier {noise.popularity:.3f} in the popularity round, {noise.train:.3f} in "
            + ("the training round" if rounds == 1 else f"each of {rounds} training rounds")
            + shares,
            "holds if": "; ".join(self.assumptions),
        }
        if self.local is not None:
            alone = round_up(self.local.epsilon, 1)
            found["without secure aggregation"] = f"epsilon {alone} per {self.unit}: no protection by itself"
        if self.notes:
            found["beware"] = "; ".join(self.notes)
        found["not covered"] = "the held-out metrics of a simulation, which are exact; other runs on the same people"
        return found


class Result(_Record):
    """result.json: what the run reached, and at what cost.

    `files` has the SHA-256 of other files of the folder, where the writer computed it; they are checked before use.
    """

    run: str
    data: str
    model: str
    unit: str
    epsilon: float | None
    delta: float | None
    rounds: int
    seed: int
    cpu_seconds: CpuSeconds
    peak_memory_mb: float
    protection: str
    guarantee: GuaranteeRecord | None
    protocol: str
    dataset: Dataset
    summary: Parts
    baselines: dict[str, BaselineResult]
    gain: Gain | None = None
    hidden: Hidden | None = None
    bytes_per_device: DeviceBytes
    best_round: int | None
    files: dict[str, str] = {}


class RoundRecord(_Record):
    """One line of rounds.jsonl."""

    round: int = Field(ge=0)
    purpose: Literal["popularity", "train"]
    loss: float | None
    validation: dict[str, float] | None
    private_validation: dict[str, float] | None = None
    devices: int
    cpu_seconds: float
    wall_seconds: float
    users_per_second: float
    bytes_down: int
    bytes_up: int
    update_rms: float | None
    table: str


class Environment(_Record):
    """environment.json: where the run was made."""

    python: str
    platform: str
    cpu_count: int | None
    packages: dict[str, str]
    palate: str
    started_at: str
