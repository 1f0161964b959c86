"""A finished run, ready to score: table, people and heads, read from its folder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from palate.data.interactions import Interactions
from palate.errors import RunError
from palate.models.learning.kernel import Scorer, fit_heads, fresh_heads, is_stateful, scorer_of
from palate.models.scores.base import Head, State
from palate.models.scores.registry import serving_training
from palate.models.table import ItemTable
from palate.simulation.config import SimulationConfig
from palate.simulation.datasets.splits import Split
from palate.simulation.federation import finished_result
from palate.simulation.host import read_heads
from palate.simulation.prepare import Prepared, prepare
from palate.simulation.run_folder import RESOLVED, located, pin_data, read_config
from palate.simulation.run_reader import read_item_table


@dataclass(frozen=True)
class Finished:
    """What is needed to recommend from a run.

    Attributes
    ----------
    config, interactions, split
        What ran, its data, and what of it was held out.
    table, column_names
        The item table, and the names of its fixed columns.
    heads
        Everybody's part of the model, with a leading dimension [num_users].
    """

    config: SimulationConfig
    interactions: Interactions
    split: Split
    table: ItemTable
    column_names: tuple[str, ...]
    heads: State

    @cached_property
    def scorer(self) -> Scorer:
        """Scores for people who know everything but their test item, as the run was evaluated."""
        serving = serving_training(self.config.training, noised_head=self.config.protects_interactions)
        fitted = fit_heads(self.table, self.split.full_train, self.heads, serving)
        return scorer_of(self.table, fitted, serving)

    def trained_head(self, user: int) -> Head | None:
        """Return the head that a person's device trained and keeps, as arrays; None where it keeps none."""
        if self.config.protects_interactions or not is_stateful(self.config.training):
            return None
        return {name: value[user].numpy() for name, value in self.heads.items()}


def open_finished(folder: Path) -> Finished:
    """Open a finished run.

    Raises
    ------
    RunError
        If the run has not finished, is damaged, or its data is not what it was.
    """
    if finished_result(folder) is None:
        raise RunError(f"{folder}: the run has not finished", hint="run the same palate simulate command to resume it")
    config = located(folder, read_config(folder, RESOLVED))
    prepared = prepare(config)
    table = table_of(folder, config, prepared)
    heads = heads_of(folder, config, table, prepared.interactions.num_users)
    return Finished(config, prepared.interactions, prepared.split, table, prepared.column_names, heads)


def table_of(folder: Path, config: SimulationConfig, prepared: Prepared) -> ItemTable:
    """Read the item table of a run, if it is about this data.

    Raises
    ------
    RunError
        If it is missing or damaged, or the data is not what it was.
    """
    saved = read_item_table(folder)
    if saved.catalogue != prepared.catalogue_hash:
        raise RunError(
            f"{folder}: its item table belongs to another catalogue than {config.data} has now",
            hint="the data has changed since; run it again with --fresh",
        )
    pin_data(folder, prepared.data_hash)
    return saved.table


def heads_of(folder: Path, config: SimulationConfig, table: ItemTable, num_users: int) -> State:
    """Heads from which everybody's serving copy is fitted: those that trained, or fresh ones where those are noised.

    Raises
    ------
    RunError
        If they are missing, damaged, or were never kept.
    """
    if config.protects_interactions:
        return fresh_heads(table, serving_training(config.training, noised_head=True), num_users)
    state = fresh_heads(table, config.training, num_users)
    if not is_stateful(config.training):
        return state
    if config.engine == "devices":
        raise RunError(f"{folder}: engine devices keeps no heads", hint="use --engine vectorised, it is the same")
    shards = min(config.shards, num_users)
    for shard in range(shards):
        part = read_heads(folder / "devices", shard, config.schedule.rounds)
        own = np.arange(shard, num_users, shards)
        for name, value in part.items():
            if name not in state or value.shape[1:] != state[name].shape[1:] or len(value) != len(own):
                raise RunError(f"{folder}: heads of shard {shard} do not fit", hint="run it again with --fresh")
            state[name][own] = value
    return state
