"""One simulation from start to result. It observes every round of the Flower ServerApp and drives none itself.

The server applies rounds; the session measures them. It asks the shards for ranks (simulation only), writes the run
folder, and concludes with the test metrics and the baselines on the same split.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from palate.data.tables import parquet_bytes
from palate.errors import FederationError, RunError
from palate.models.learning.kernel import is_stateful
from palate.models.table import ItemTable
from palate.privacy import files
from palate.privacy.mechanisms.evaluation import NoisyMetrics
from palate.privacy.wire import RoundPlan
from palate.server.coordinator import Coordinator, RoundOutcome
from palate.server.store import RunStore
from palate.simulation import run_folder
from palate.simulation.claims import guarantee_of, label_of
from palate.simulation.config import SimulationConfig
from palate.simulation.evaluation import Evaluation
from palate.simulation.host import join_answers, num_nodes
from palate.simulation.ledgers import RunLedger, have_keys, make_keys
from palate.simulation.measure import cpu_seconds
from palate.simulation.noise_keys import destroy_noise_key, make_noise_key, read_noise_key
from palate.simulation.prepare import Prepared, coordinator_of
from palate.simulation.results import conclude

if TYPE_CHECKING:
    from palate.simulation.progress import Watcher

RoundLine = dict[str, Any]
PARTS = ("validation", "test")
NUM_HIDDEN = 5
"""Newest items of everybody that are hidden in one more ranking of the test items: what recency is worth."""


class SimulationSession:
    """A run: `coordinator` for the server, observer of its rounds, and author of the run folder.

    Raises
    ------
    RunError
        If the folder's checkpoint is damaged or belongs to another catalogue, its engine cannot be resumed, or the
        noise of a run that has begun is lost.
    """

    def __init__(self, config: SimulationConfig, prepared: Prepared, folder: Path, watcher: Watcher) -> None:
        self.config = config
        self.prepared = prepared
        self.folder = folder
        self.name = run_folder.run_name(folder)
        self.result: dict[str, Any] | None = None
        self._watcher = watcher
        self._store = RunStore(folder)
        self._metadata = {
            "run": self.name,
            "unit": config.unit,
            "protection": label_of(config),
            "catalogue": prepared.catalogue_hash,
            "columns": json.dumps(prepared.column_names),
        }
        nodes = num_nodes(config, prepared.interactions.num_users)
        self.coordinator = coordinator_of(config, prepared, run=self.name, nodes=nodes)
        snapshot = self._store.load(self._metadata)
        if snapshot is not None:
            if config.engine == "devices" and snapshot.server_round > 0 and is_stateful(config.training):
                raise RunError(
                    f"{folder}: a run with engine devices cannot be resumed, its heads were in memory",
                    hint="start anew with --fresh; engine vectorised gives the same result and can be resumed",
                )
            self.coordinator.restore(snapshot)
        # Also without a checkpoint: a crash in round 0 may have left its line.
        self.lines: list[RoundLine] = self._store.read_rounds(self.coordinator.next_round - 1)
        run_folder.write_items(folder, prepared.interactions.catalogue)
        self._ledger: RunLedger | None = None
        if config.promises:
            if not have_keys(folder):
                if snapshot is not None:
                    raise RunError(f"{folder}: the ledgers of this run are missing", hint="run it again with --fresh")
                destroy_noise_key(folder)  # of a cleared or half-started run: its noise must not be used twice
                make_noise_key(folder, seed=config.seed if config.privacy.noise == "seeded" else None)
                make_keys(folder)
            if not self.coordinator.finished:
                read_noise_key(folder)  # never a new one: a round would be released twice, with two noises
            popularity, train = self.coordinator.example_plans()
            self._ledger = RunLedger(folder, config.promises, [(popularity, 1), (train, config.schedule.rounds)])
            for line in self.lines:  # a process may have been killed between a checkpoint and its entry
                self._ledger.finish(self.name, line["round"], line["table"])
        # What earlier processes of a resumed run spent counts.
        earlier = sum(line["cpu_seconds"] + line["evaluation_cpu_seconds"] for line in self.lines)
        self._cpu_before = cpu_seconds() - earlier
        self._clock = (0.0, 0.0)
        watcher.started(self, self.lines)

    @property
    def observers(self) -> tuple[SimulationSession]:
        """The session watches its own rounds."""
        return (self,)

    def round_started(self, plan: RoundPlan) -> None:
        """Charge the server's ledger, and start the clocks."""
        if self._ledger is not None:
            self._ledger.begin(plan)
        self._clock = (cpu_seconds(), time.perf_counter())

    def round_finished(self, outcome: RoundOutcome, coordinator: Coordinator, grid: Grid) -> None:
        """Validate, write the line, the checkpoint, then the ledger: a crash in between repeats what is missing."""
        cpu, wall = cpu_seconds() - self._clock[0], time.perf_counter() - self._clock[1]
        server_round = outcome.server_round
        validation, loss, evaluation_cpu = None, None, 0.0
        due = server_round % self.config.evaluate_every == 0 or coordinator.finished
        if server_round > 0 and due:
            before = cpu_seconds()
            evaluation, loss = self.ask(grid, "validation", server_round, outcome.table, full=False)
            if len(evaluation.users):
                metrics = evaluation.metrics()
                validation = {"hr@10": metrics.hit_rate.value, "ndcg@10": metrics.ndcg.value}
            evaluation_cpu = cpu_seconds() - before
        devices = coordinator.settings.cohort
        line: RoundLine = {
            "round": server_round,
            "purpose": outcome.purpose,
            "loss": loss,
            "validation": validation,
            "private_validation": _private_validation(outcome.metrics),
            "devices": devices,
            "cpu_seconds": cpu,
            "evaluation_cpu_seconds": evaluation_cpu,
            "wall_seconds": wall,
            "users_per_second": devices / wall,
            "bytes_down": 4 * (outcome.table.fixed.size + outcome.table.learned.size),
            "bytes_up": 4 * coordinator.example_plans()[outcome.purpose == "train"].update_size,
            "update_rms": outcome.update_rms,
            "table": outcome.table.content_hash,
        }
        self._store.append_round(line)
        self._store.save(coordinator.snapshot(), self._metadata)
        if self._ledger is not None:
            self._ledger.finish(self.name, server_round, outcome.table.content_hash)
        self.lines.append(line)
        self._watcher.round_done(line)

    def finish(self, grid: Grid) -> None:
        """Rank everything once, fit the baselines, write the result."""
        table, last = self.coordinator.table, self.config.schedule.rounds
        self._watcher.phase("ranking the whole catalogue")
        evaluations = {part: self.ask(grid, part, last, table, full=True)[0] for part in PARTS}
        self._write_evaluations(evaluations)
        spent = cpu_seconds() - self._cpu_before
        hidden = None
        if self.config.baselines and self.prepared.interactions.has_time:
            self._watcher.phase(f"ranking with the newest {NUM_HIDDEN} items of everybody hidden")
            hidden = NUM_HIDDEN, self.ask(grid, "test", last, table, full=True, hidden=NUM_HIDDEN)[0]
        if self._ledger is not None:
            self._ledger.check(self.coordinator.example_plans())
            self._ledger.close()
            destroy_noise_key(self.folder)
        guarantee = guarantee_of(self.config, self.coordinator, self._watcher.phase)
        self.result = conclude(
            self.config,
            self.prepared,
            self.folder,
            evaluations,
            self.lines,
            spent,
            guarantee,
            self._watcher.phase,
            hidden=hidden,
        )

    def ask(
        self, grid: Grid, part: str, server_round: int, table: ItemTable, *, full: bool, hidden: int = 0
    ) -> tuple[Evaluation, float | None]:
        """Ask every node for the ranks of its people: an evaluation of all, and the mean training loss.

        The `hidden` newest items of everybody are not used.

        Raises
        ------
        FederationError
            If a node cannot answer.
        """
        nodes = sorted(grid.get_node_ids())
        question = ConfigRecord({"part": part, "round": server_round, "full": int(full), "hidden": hidden})
        arrays = ArrayRecord({"fixed": Array(table.fixed), "learned": Array(table.learned)})
        content = RecordDict({"question": question, "table": arrays})
        messages = [
            Message(content=content, dst_node_id=node, message_type=MessageType.QUERY, group_id=str(server_round))
            for node in nodes
        ]
        timeout = self.config.schedule.timeout_seconds
        replies = sorted(grid.send_and_receive(messages, timeout=timeout), key=lambda it: it.metadata.src_node_id)
        answers: list[Mapping[str, Any]] = []
        for reply in replies:
            if reply.has_error():
                raise FederationError(
                    f"evaluation after round {server_round}: a node failed: {reply.error.reason}",
                    hint=f"see {self.folder / 'log.txt'}",
                )
            record = reply.content.array_records["answer"]
            answers.append({name: array.numpy() for name, array in record.items()})
        if len(answers) < len(nodes):
            raise FederationError(
                f"evaluation after round {server_round}: {len(answers)} of {len(nodes)} nodes answered",
                hint="allow more time: schedule.timeout_seconds",
            )
        return join_answers(answers, full=full)

    def _write_evaluations(self, evaluations: Mapping[str, Evaluation]) -> None:
        ids = pl.Series("user_id", list(self.prepared.interactions.users), dtype=pl.String)
        frames = []
        for part, evaluation in evaluations.items():
            frame = evaluation.to_frame()
            frames.append(
                frame.with_columns(pl.lit(part).alias("part"), ids.gather(frame["user"].to_numpy()).alias("user_id"))
            )
        files.replace(self.folder / "evaluation.parquet", parquet_bytes(pl.concat(frames)), mode=files.SHARED)


def _private_validation(metrics: NoisyMetrics | None) -> dict[str, float] | None:
    """Return the devices' own metrics of the table that the round started from, noise included."""
    if metrics is None:
        return None
    return {
        "hr@10": metrics.hit_rate,
        "ndcg@10": metrics.ndcg,
        "hr@10_std": metrics.hit_rate_std,
        "ndcg@10_std": metrics.ndcg_std,
    }
