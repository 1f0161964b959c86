"""The typed configuration of a simulation: flags, TOML files and run folders all become this."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    field_validator,
    model_validator,
)

from palate.data.options import ReadOptions
from palate.errors import ConfigError
from palate.models.training import LocalTraining
from palate.privacy.accounting.events import Unit
from palate.privacy.budget import Promise, RunBudget, promises_of, run_terms
from palate.privacy.mechanisms.registry import MECHANISMS
from palate.privacy.mechanisms.terms import RunTerms
from palate.server.denoising import ReleaseConfig
from palate.server.optimisers import OptimiserConfig, build_optimiser
from palate.server.resolving import complete, planned_settings
from palate.server.settings import Schedule, ServerSettings, require_together
from palate.server.values import asked_in, read_toml, setting_refused
from palate.simulation.protection import UNPROTECTED, PrivacyOptions, cohort_of, device_rounds

AUTO_BASELINES = ("auto",)
"""Palate's own baselines; whether the expensive ones are among them depends on the number of people."""


class ContentOptions(BaseModel):
    """Which public columns the item table gets; see `palate.data.content`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    use: bool = Field(True, description="use genres, years and texts of the items")
    text: Literal["auto", "embedding", "tfidf", "off"] = Field(
        "auto", description="how titles and texts are read: a sentence encoder, word counts, or not at all"
    )
    text_dim: int = Field(64, ge=0, le=1024, description="columns that text is reduced to; 0 leaves text out")


class SimulationConfig(BaseModel):
    """Everything that is needed to repeat a run.

    It is made from the values that were asked for; the rest are the defaults of the unit of protection, for every
    interface. `model_fields_set`, of this and of its sections, holds what was asked for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str = Field("demo", description="dataset name, file or folder, such as ml-100k")
    unit: str = Field("user", description="what the guarantee covers: user, interaction or both; none is no privacy")
    epsilon: float | None = Field(None, gt=0, description="privacy budget of the whole run")
    delta: float | None = Field(None, gt=0, lt=1, description="failure probability of the guarantee")
    seed: int = Field(1, ge=0, lt=2**63, description="seed of everything random in the run")
    engine: Literal["vectorised", "flower", "devices"] = Field(
        "vectorised", description="how nodes run: vectorised (here), flower (on Ray), devices (one by one, slow)"
    )
    shards: int = Field(4, ge=1, le=4096, description="nodes that share the virtual devices")
    tune: bool = Field(
        True,
        description="choose training.regularisation and training.serving_forgetting on validation data, unless the "
        "ridge is given (unit none only)",
    )
    auto: tuple[str, ...] = Field(
        (), description="settings that the size of the federation and the budget decide; those not given"
    )
    evaluate_every: int = Field(1, ge=1, description="rounds between two validations")
    baselines: tuple[str, ...] = Field(
        AUTO_BASELINES,
        description="references: auto (all, but not the expensive ones above 20,000 people), all, none, or names",
    )
    new_items: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="share of the items to leave out of all histories, and to test as new ones",
    )
    split_version: int = Field(
        2, ge=1, le=2, description="ties of time: 2 draws them by a seed, 1 keeps the file's order, as earlier runs did"
    )
    read: ReadOptions = ReadOptions()
    content: ContentOptions = ContentOptions()
    privacy: PrivacyOptions = PrivacyOptions()
    schedule: Schedule = Schedule()
    training: LocalTraining = LocalTraining()
    optimiser: OptimiserConfig = OptimiserConfig()
    release: ReleaseConfig = ReleaseConfig()

    @field_validator("baselines", mode="before")
    @classmethod
    def _names_of_baselines(cls, value: object) -> object:
        """Read names from text, separated by commas; "auto", "all" and "none" are accepted."""
        from palate.simulation.baselines.registry import BASELINES

        if not isinstance(value, str):
            return value
        names = tuple(name.strip() for name in value.split(",") if name.strip())
        return tuple(BASELINES.built_in) if names == ("all",) else () if names == ("none",) else names

    @model_validator(mode="wrap")
    @classmethod
    def _complete(cls, asked: Any, validate: ModelWrapValidatorHandler[SimulationConfig]) -> SimulationConfig:
        if not isinstance(asked, Mapping):
            return validate(asked)
        values = {name: asked_in(value) if isinstance(value, BaseModel) else value for name, value in asked.items()}
        unit = str(values.get("unit", "user"))
        added: dict[str, Any] = {"auto": planned_settings(unit, values)}
        whole = complete({**added, **values}, unit)
        if "regularisation" in whole.get("training", {}):
            whole = {"tune": False, **whole}  # what was asked for by value is not chosen again
        config = validate(whole)
        _note_asked(config, values)
        return config

    @model_validator(mode="after")
    def _known_names(self) -> SimulationConfig:
        from palate.models.scores.registry import score_model  # torch: only when there is something to check
        from palate.simulation.baselines.registry import BASELINES

        chosen = score_model(self.training.model, self.training.objective)
        if self.new_items and self.engine == "devices" and (self.training.objective == "bce" or chosen.residual_head):
            raise ConfigError(
                f"engine 'devices' keeps no heads of model {self.training.model!r}, and new_items {self.new_items:g} "
                "needs them",
                hint="use --engine vectorised, which gives the same result, or --model gmf",
            )
        build_optimiser(self.optimiser)
        for name in self.baselines if self.baselines != AUTO_BASELINES else ():
            BASELINES.resolve(name)
        if self.unit not in MECHANISMS:
            raise ConfigError(
                f"unit {self.unit!r} has no mechanism in this version",
                hint=f"choose one of {', '.join(MECHANISMS)}; none means no privacy",
            )
        if self.unit == UNPROTECTED and (self.epsilon is not None or self.delta is not None):
            raise ConfigError(
                f"unit {self.unit!r} has no epsilon and no delta",
                hint="leave out --epsilon and --delta: nothing is protected with this unit",
            )
        if self.unit != UNPROTECTED and (self.epsilon is None or self.delta is None):
            raise ConfigError(
                f"unit {self.unit!r} needs an epsilon and a delta", hint="for example --epsilon 8 --delta 1e-5"
            )
        if self.schedule.head and not MECHANISMS[self.unit].hides_rows:
            raise ConfigError(
                f"schedule.head is {self.schedule.head:g}, and unit {self.unit!r} does not use it",
                hint="leave it out, or use unit user: it compares the popularity of items with its noise",
            )
        require_together(self.unit, self.training, self.optimiser, self.release)
        self._check_interactions()
        return self

    def _check_interactions(self) -> None:
        if self.protects_interactions and self.training.objective != "bce":
            raise ConfigError(
                f"objective {self.training.objective!r} cannot protect single interactions",
                hint="leave out --objective, or use unit user",
            )
        if self.protects_interactions and self.privacy.evaluation_share:
            raise ConfigError(
                f"unit {self.unit!r} cannot carry the devices' metrics: they depend on the whole history",
                hint="leave out privacy.evaluation_share",
            )

    @property
    def protects_interactions(self) -> bool:
        """Whether the run protects single interactions, on the device."""
        return MECHANISMS[self.unit].per_interaction

    @property
    def promises(self) -> dict[Unit, Promise]:
        """Budgets of every device, by unit; empty without protection."""
        if self.epsilon is None or self.delta is None:
            return {}
        privacy = self.privacy
        return promises_of(
            self.unit,
            self.epsilon,
            self.delta,
            sensitivity=privacy.sensitivity,
            interaction_epsilon=privacy.interaction_epsilon,
        )

    def terms(self, *, population: int) -> RunTerms | None:
        """Noise of the rounds; None without protection.

        Raises
        ------
        ConfigError, PrivacyError
            If the numbers do not go together, or no noise meets the budget.
        """
        if self.epsilon is None or self.delta is None:
            return None
        options, schedule = self.privacy, self.schedule
        cohort = cohort_of(options, population, schedule.participation)
        budget = RunBudget(
            unit=self.unit,
            epsilon=self.epsilon,
            delta=self.delta,
            interaction_epsilon=options.interaction_epsilon,
            rounds=device_rounds(options, schedule.rounds, population, schedule.participation),
            popularity_share=options.popularity_share,
            clip_norm=options.clip_norm,
            sensitivity=options.sensitivity,
            honest_shares=cohort.honest,
            roster_size=cohort.size,
            popularity_interactions=options.popularity_interactions,
            interactions_per_round=options.interactions_per_round,
        )
        return run_terms(budget)

    def server_settings(self, *, run: str, population: int, nodes: int = 1) -> ServerSettings:
        """Return the operator's part of the configuration."""
        terms = self.terms(population=population)
        return ServerSettings(
            run=run,
            unit=self.unit,
            terms=terms,
            evaluation_share=0.0 if terms is None else self.privacy.evaluation_share,
            interactions_per_round=self.privacy.interactions_per_round if self.protects_interactions else 0,
            popularity_interactions=self.privacy.popularity_interactions if self.protects_interactions else 0,
            population=population,
            nodes=nodes,
            schedule=self.schedule,
            training=self.training,
            optimiser=self.optimiser,
            release=self.release,
            start_seed=self.seed,
        )

    def to_toml(self) -> str:
        """Write as TOML; unset options are left out."""
        paths_as_text = {"read": self.read.model_dump(mode="json", exclude_none=True)}
        return tomli_w.dumps(self.model_dump(mode="python", exclude_none=True) | paths_as_text)

    @property
    def fingerprint(self) -> str:
        """Eight hexadecimal digits that name this configuration."""
        return hashlib.sha256(self.to_toml().encode()).hexdigest()[:8]

    @property
    def default_run_name(self) -> str:
        """Folder name under runs/: the same command finds the same folder again."""
        data = Path(self.data).name.split(".")[0] or "data"
        return f"{data}-{self.training.model}-{self.unit}-seed{self.seed}-{self.fingerprint}"


def _note_asked(settings: BaseModel, asked: Mapping[str, Any]) -> None:
    """Keep in `model_fields_set` only what was asked for, here and in the sections."""
    settings.model_fields_set.intersection_update(asked)
    for name in type(settings).model_fields:
        if isinstance(section := getattr(settings, name), BaseModel):
            _note_asked(section, asked.get(name, {}))


def load_config(path: Path) -> dict[str, Any]:
    """Read a TOML file as nested values; raises ConfigError if it is missing or not TOML."""
    return read_toml(path, missing="check the path of the configuration file")


def checked_config(asked: Mapping[str, Any]) -> SimulationConfig:
    """Validate nested values.

    Raises
    ------
    ConfigError
        If something is unknown, missing or out of range, in one line that names it.
    """
    try:
        return SimulationConfig.model_validate(dict(asked))
    except ValidationError as error:
        raise setting_refused(error, SimulationConfig, hint="see palate simulate --help") from error
