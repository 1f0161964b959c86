"""What the operator of a fleet decides, in one file: fleet.toml.

Much of it is public: devices learn the budget and the terms of every round, and hold them against their own floors.
Settings that are left out follow from the budget and the number of devices (`palate.server.resolving`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from palate.errors import ConfigError
from palate.models.training import LocalTraining
from palate.privacy.accounting.dropout import Quorum
from palate.privacy.accounting.events import Unit
from palate.privacy.aggregators.admission import MAX_REGISTERED
from palate.privacy.budget import SENSITIVITY, Promise, RunBudget, run_terms
from palate.privacy.errors import PrivacyError
from palate.privacy.wire import FleetStep
from palate.server.denoising import ReleaseConfig
from palate.server.fleet.planning import LARGEST_ROSTER, USUAL_DEVICES, cohort_choices
from palate.server.optimisers import OptimiserConfig, build_optimiser
from palate.server.resolving import Choice, PublicNumbers, choices, complete, planned_settings
from palate.server.settings import Schedule, ServerSettings, require_together
from palate.server.values import checked_name, fields_of, flat, merge, nested, read_toml, setting_refused, values_of

UNIT = str(Unit.USER)
"""Unit of protection of every fleet."""

_NOT_OF_FLEETS = {"schedule.participation", "schedule.timeout_seconds"}
"""Settings of simulations alone: a fleet asks whoever is online, and every step has a deadline of its own."""

_USUAL_ITEMS = 1_000
_MOST_LOST_IN_A_ROW = 3


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Listen(_Section):
    """Where the server is reached, and where it listens."""

    address: str = Field(description="host:port that devices connect to, as written in their welcome")
    bind: str = Field("0.0.0.0", description="address to listen on")
    port: int = Field(9092, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    metrics_port: int = Field(0, ge=0, le=65535, description="port of the metrics page on 127.0.0.1; 0 for none")

    @property
    def host(self) -> str:
        """What devices connect to, without the port."""
        return self.address.rpartition(":")[0].strip("[]")


class HelperParty(_Section):
    """The second aggregator: with one, a device sends one report a round instead of five messages."""

    key: str = Field(
        "",
        pattern=r"^([0-9a-f]{64})?$",
        description="the helper's signing key, as in keys/helper.card; empty where devices share masks with each other",
    )
    link: Literal["https", "files"] = Field(
        "https", description="how the helper is asked: its service, or files that somebody carries (helper/)"
    )

    @property
    def there(self) -> bool:
        """Whether the fleet has a helper."""
        return bool(self.key)


class Cohort(_Section):
    """How many devices a round needs, and which failures it stands."""

    devices: int = Field(USUAL_DEVICES, ge=2, le=MAX_REGISTERED, description="devices that the first round waits for")
    smallest: int = Field(10, ge=2, description="fewest devices in a round, and fewest whose vectors are in a sum")
    largest: int = Field(
        LARGEST_ROSTER, ge=2, le=MAX_REGISTERED, description="most devices asked in a round; drawn if more are online"
    )
    tau: float = Field(0.5, gt=0, lt=1, description="share of those asked that a round needs; among peers more than it")
    gamma: float = Field(
        0.0,
        ge=0,
        lt=0.5,
        description="share of all enrolled devices that may be corrupt, whoever is asked in a round; among peers it "
        "needs a separate authority",
    )
    authority_is_separate: bool = Field(
        False, description="whether others than the server's operators hold the enrolment authority's key"
    )

    @field_validator("tau", "gamma")
    @classmethod
    def _in_thousandths(cls, value: float) -> float:
        if abs(value * 1000 - round(value * 1000)) > 1e-9:
            raise ConfigError(f"{value} is not a number of thousandths", hint="write at most three decimals")
        return value

    @model_validator(mode="after")
    def _in_order(self) -> Cohort:
        if not self.smallest <= self.devices <= self.largest:
            raise ConfigError(
                f"cohort: smallest {self.smallest}, devices {self.devices} and largest {self.largest} are not in order",
                hint="smallest is at most devices, and devices at most largest",
            )
        return self

    def quorum(self, enrolled: int) -> Quorum:
        """Who must survive a round among peers, and who may be lying.

        The server chooses the roster, and all k corrupt devices of the enrolled may be on it. So the share of a roster
        is k over the smallest one, rounded up to thousandths: it covers k on every roster.

        Raises
        ------
        PrivacyError
            If the corrupt ones could be half of a roster, or tau is too small beside them.
        """
        share = -(-1000 * self.corrupt(enrolled) // self.smallest)
        if share >= 500:
            raise PrivacyError(
                f"{self.corrupt(enrolled)} of {enrolled} enrolled devices may be corrupt, half or more of a round of "
                f"{self.smallest}",
                hint="raise cohort.smallest, or lower cohort.gamma",
            )
        return Quorum(tau=self.tau, gamma=share / 1000)

    def corrupt(self, enrolled: int) -> int:
        """k, devices of all that are enrolled that may be corrupt: floor(gamma E)."""
        return round(self.gamma * 1000) * enrolled // 1000

    def least_batch(self, asked: int) -> int:
        """B, fewest reports in a sum where so many devices are asked with a helper: at least the share tau."""
        return max(self.smallest, -(-round(self.tau * 1000) * asked // 1000))

    def require_peers(self) -> None:
        """Check what a round among peers needs.

        Raises
        ------
        ConfigError, PrivacyError
            If it cannot be so.
        """
        _ = self.quorum(self.devices)
        if self.gamma and not self.authority_is_separate:
            raise ConfigError(
                f"cohort.gamma is {self.gamma:g}, but the server's operators also enrol devices and could invent them",
                hint="let others hold the authority's key, or set gamma to 0",
            )
        if self.largest > LARGEST_ROSTER:
            raise ConfigError(
                f"cohort: {self.largest} devices in a round, among peers at most {LARGEST_ROSTER} share their masks",
                hint="set up a helper (section helper), or ask fewer devices",
            )

    def require_batch(self) -> None:
        """Check what a round through two aggregators needs; raises ConfigError."""
        corrupt = self.corrupt(self.devices)
        if corrupt >= self.smallest:
            raise ConfigError(
                f"cohort.gamma {self.gamma:g} of {self.devices} devices allows for {corrupt} corrupt ones, and "
                f"cohort.smallest {self.smallest} leaves no honest one beside them",
                hint="raise cohort.smallest, or lower cohort.gamma",
            )


class Deadlines(_Section):
    """How long each step waits for stragglers, in seconds; training happens before the first answer."""

    gather_seconds: float = Field(
        600.0,
        gt=0,
        description="for all planned devices to come before the first round; then those who are there begin",
    )
    advertise_seconds: float = Field(600.0, gt=0, description="to receive the plan, train and answer")
    share_seconds: float = Field(120.0, gt=0, description="to share keys")
    mask_seconds: float = Field(120.0, gt=0, description="to send the masked vector")
    confirm_seconds: float = Field(60.0, gt=0, description="to sign who survived")
    reveal_seconds: float = Field(60.0, gt=0, description="to reveal what takes the masks off")
    receipt_seconds: float = Field(60.0, gt=0, description="to take the receipt")
    report_seconds: float = Field(600.0, gt=0, description="under two aggregators: to train and send the one report")
    answer_seconds: float = Field(
        3600.0, gt=0, description="under two aggregators: for the helper to answer once no report comes any more"
    )
    offline_seconds: float = Field(60.0, gt=0, description="for a device that is offline to come back, in any step")
    pause_seconds: float = Field(5.0, ge=0, description="between a failed round and the next")
    every_seconds: float = Field(
        0.0, ge=0, description="at least from the beginning of one round to that of the next, so that rounds are spread"
    )

    def of(self, step: FleetStep) -> float:
        """Seconds for a step."""
        return float(getattr(self, f"{step.value}_seconds"))


class Failures(_Section):
    """When the server stops by itself: every lost round stays charged to all its devices."""

    halt_after: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="rounds lost in a row after which the server stops by itself, until palate server resume; unless "
        "given, 3 with a helper, and among peers one more than privacy.spare_rounds, at most 3",
    )


class Budget(_Section):
    """How the budget is spent."""

    popularity_share: float = Field(0.1, gt=0, lt=1, description="part of the budget for the popularity round")
    spare_rounds: int = Field(1, ge=0, le=1000, description="failed rounds of each kind that the budget pays for")
    clip_norm: float = Field(1e-3, gt=0, description="L2 bound of one device's training update; public")
    sensitivity: int = Field(SENSITIVITY, ge=SENSITIVITY, le=65536, description="the same bound in integer steps")
    evaluation_share: float = Field(
        0.1, ge=0, lt=1, description="part of the clip norm that carries the devices' own metrics; 0 asks for none"
    )


class Content(_Section):
    """Which public columns the item table gets."""

    use: bool = Field(True, description="use genres, years and texts of the items")
    text_dim: int = Field(64, ge=0, le=1024, description="columns that words are reduced to; 0 leaves text out")
    items: int = Field(
        _USUAL_ITEMS, ge=1, description="size of the catalogue that the run is planned for; palate server init counts"
    )
    described: bool = Field(True, description="whether the catalogue gives any such columns; likewise")


class FleetConfig(_Section):
    """Everything that an operator decides about a fleet."""

    name: str = Field(description="name of the fleet: letters, digits, dots and dashes")
    run: str = Field(description="name of the run; ledgers tell rounds apart by it, so never use one twice")
    epsilon: float = Field(8.0, gt=0, description="privacy budget of the run, for each person")
    delta: float = Field(1e-5, gt=0, lt=1, description="failure probability of the guarantee")
    seed: int = Field(0, ge=0, lt=2**63, description="public seed of the starting embeddings")
    listen: Listen
    helper: HelperParty = HelperParty()
    cohort: Cohort = Cohort()
    deadlines: Deadlines = Deadlines()
    failures: Failures = Failures()
    privacy: Budget = Budget()
    schedule: Schedule = Schedule()
    training: LocalTraining = LocalTraining()
    optimiser: OptimiserConfig = OptimiserConfig()
    release: ReleaseConfig = ReleaseConfig()
    content: Content = Content()

    @field_validator("name", "run")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        return checked_name(value)

    @model_validator(mode="after")
    def _can_run(self) -> FleetConfig:
        from palate.models.scores.registry import score_model  # torch: only when there is something to check

        if self.helper.there:
            self.cohort.require_batch()
        else:
            self.cohort.require_peers()
        score_model(self.training.model, self.training.objective)
        build_optimiser(self.optimiser)
        require_together(UNIT, self.training, self.optimiser, self.release)
        if self.schedule.participation != 1.0:
            raise ConfigError(
                f"schedule.participation is {self.schedule.participation:g}, a fleet asks every device that is online",
                hint="leave it out; cohort.largest bounds a round",
            )
        return self

    @property
    def promise(self) -> Promise:
        """What every device is promised."""
        return Promise(
            unit=Unit.USER,
            epsilon=self.epsilon,
            delta=self.delta,
            sensitivity=SENSITIVITY,
            rounds="all rounds of the run together",
        )

    @property
    def halt_after(self) -> int:
        """Rounds lost in a row after which the server stops by itself.

        Unless the operator says otherwise these are three with a helper: a device has one message to send, so that a
        round is lost by chance, and the next try may well succeed. Among peers, where one device can spoil every round,
        they are the spare rounds and one more, which already costs a round that the run was planned with.
        """
        given = self.failures.halt_after
        if given is not None:
            return given
        return _MOST_LOST_IN_A_ROW if self.helper.there else min(_MOST_LOST_IN_A_ROW, self.privacy.spare_rounds + 1)

    def server_settings(self) -> ServerSettings:
        """Return the coordinator's settings; terms are for one device, and each round spreads them over its roster.

        Raises
        ------
        PrivacyError
            If no noise meets the budget.
        """
        budget = RunBudget(
            unit=UNIT,
            epsilon=self.epsilon,
            delta=self.delta,
            rounds=self.schedule.rounds,
            spare_rounds=self.privacy.spare_rounds,
            popularity_share=self.privacy.popularity_share,
            clip_norm=self.privacy.clip_norm,
            sensitivity=self.privacy.sensitivity,
            owners_sensitivity=SENSITIVITY,
        )
        return ServerSettings(
            run=self.run,
            unit=UNIT,
            terms=run_terms(budget),
            evaluation_share=self.privacy.evaluation_share,
            population=self.cohort.devices,
            schedule=self.schedule,
            training=self.training,
            optimiser=self.optimiser,
            release=self.release,
            start_seed=self.seed,
        )


def checked_config(asked: Mapping[str, Any]) -> FleetConfig:
    """Validate nested values, with what is left out decided.

    Raises
    ------
    ConfigError
        If something is unknown, missing or out of range, in one line that names it.
    """
    return resolve(asked)[0]


def resolve(asked: Mapping[str, Any]) -> tuple[FleetConfig, dict[str, Choice]]:
    """Return the configuration that runs, and what was planned of it, with reasons; raises as `checked_config`."""
    helper = asked.get("helper", {})
    cohort = cohort_choices(asked, helper=isinstance(helper, Mapping) and bool(helper.get("key")))
    whole = merge(complete(asked, UNIT), nested({name: choice.value for name, choice in cohort.items()}))
    try:
        config = FleetConfig.model_validate(whole)
        content = config.content
        numbers = PublicNumbers(
            cohort=config.cohort.devices, num_items=content.items, content=content.use and content.described
        )
        auto = planned_settings(UNIT, asked)
        planned = choices(config, auto, epsilon=config.epsilon, delta=config.delta, numbers=numbers)
        values = nested({name: choice.value for name, choice in planned.items()})
        return FleetConfig.model_validate(merge(whole, values)), cohort | planned
    except ValidationError as error:
        raise setting_refused(error, FleetConfig, hint="fleet.toml says what each means") from error


def load_config(path: Path) -> FleetConfig:
    """Read fleet.toml.

    Raises
    ------
    ConfigError
        If the file is missing, is not TOML, or says something that cannot be used.
    """
    return checked_config(read_toml(path, missing="make a fleet with palate server init"))


def to_toml(asked: Mapping[str, Any]) -> str:
    """Write a fleet.toml that names every setting: those asked for with their values, the others as comments."""
    config, planned = resolve(asked)
    values, given, fields = values_of(config), flat(asked), fields_of(FleetConfig)
    lines = [
        "# What the operator of this fleet decides. A setting behind # is what holds unless it is changed;",
        "# a planned one follows the budget and the number of devices when they change.",
        "",
    ]
    section = ""
    for name in sorted(fields, key=lambda name: "." in name):  # as TOML wants it: tables come last
        if name in _NOT_OF_FLEETS:
            continue
        table, _, key = name.rpartition(".")
        if table != section:
            section = table
            lines += ["", f"[{section}]"]
        lines.append(f"# {fields[name].description}")
        if name in planned:
            lines.append(f"# planned: {planned[name].reason}")
        lines.append(f"{'' if name in given else '# '}{_assignment(key, values[name])}")
    return "\n".join([*lines, ""])


def _assignment(key: str, value: Any) -> str:
    import tomli_w

    if value is None:
        return f"{key} = ..."
    value = list(value) if isinstance(value, tuple) else value
    return " ".join(tomli_w.dumps({key: value}).split())
