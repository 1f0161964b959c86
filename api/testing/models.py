"""What every score model promises, `palate.models.scores.base.ScoreModel`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from palate.models.arrays import Float32Array
from palate.models.histories import Histories
from palate.models.scores.base import ResidualHead, ScoreModel, Shape
from palate.models.scores.registry import SCORE_MODELS, serving_training
from palate.models.table import ItemTable, initial_embeddings
from palate.models.training import LocalTraining
from palate.testing.base import Conformance

if TYPE_CHECKING:
    from torch import Tensor

_SHAPE = Shape(fixed_dim=3, dim=5, hidden=4)
_HEADS, _ROWS, _ITEMS = 4, 11, 30


class ModelConformance(Conformance):
    """Checks of a score model."""

    part: ClassVar[str | type[ScoreModel]]

    @property
    def model(self) -> type[ScoreModel]:
        """The class itself."""
        return SCORE_MODELS.resolve(self.part)

    def test_a_fresh_head_is_finite_and_the_same_everywhere(self) -> None:
        """`initial` draws from the generator that it is given, and from nothing else."""
        for shape in (_SHAPE, Shape(fixed_dim=0, dim=2, hidden=1)):
            first, again = (self.model.initial(shape, np.random.default_rng(5)) for _ in range(2))
            self.expect(first, "a fresh head has no parameters")
            self.expect(first.keys() == again.keys(), "two fresh heads have other parameters")
            for name, value in first.items():
                what = f"{name} of a fresh head"
                self.expect(value.dtype == np.float32, f"{what} is {value.dtype}, not float32")
                self.expect(np.isfinite(value).all(), f"{what} is not finite")
                self.expect(np.array_equal(value, again[name]), f"{what} differs from one call to the next")

    def test_scores_are_finite_and_one_for_each_row(self) -> None:
        """`batched` maps [B, n, row_dim] to [B, n], for empty and for large rows, too."""
        state, rows = self._state(), self._rows()
        for what, these in (("rows", rows), ("rows of zeros", 0 * rows), ("large rows", 1e3 * rows.astype(np.float32))):
            scores = self.model.batched(state, these.astype(np.float32))
            self.expect(scores.shape == rows.shape[:2], f"scores of {list(rows.shape)} {list(scores.shape)}")
            self.expect(scores.dtype == np.float32, f"scores are {scores.dtype}, not float32")
            self.expect(np.isfinite(scores).all(), f"scores of {what} are not finite")

    def test_a_score_depends_on_its_own_head_and_row_alone(self) -> None:
        """Every head and every row scores as it does by itself."""
        state, rows = self._state(), self._rows()
        together = self.model.batched(state, rows)
        for head in range(_HEADS):
            alone = self.model.batched({name: value[[head]] for name, value in state.items()}, rows[[head]])
            self.expect_close(alone[0], together[head], "a head alone and in a batch")
        some = self.model.batched(state, np.ascontiguousarray(rows[:, ::-2]))
        self.expect_close(some, together[:, ::-2], "some of the rows by themselves")

    def test_numpy_and_pytorch_score_alike(self) -> None:
        """What recommends is what was trained."""
        state, rows = self._state(), self._rows()
        tensors = {name: _tensor(value) for name, value in state.items()}
        scored = self.model.batched(tensors, _tensor(rows)).numpy()
        self.expect_close(scored, self.model.batched(state, rows), "NumPy's scores and PyTorch's")

    def test_gradients_are_those_of_finite_differences(self) -> None:
        """PyTorch can differentiate the scores in every parameter and in the rows."""
        import torch

        inputs = {name: _tensor(value[:2]).double().requires_grad_() for name, value in self._state().items()}
        rows = _tensor(self._rows()[:2, :3]).double().requires_grad_()

        def scored(rows: Tensor, *values: Tensor) -> Tensor:
            return self.model.batched(dict(zip(inputs, values, strict=True)), rows)

        right = torch.autograd.gradcheck(scored, (rows, *inputs.values()), raise_exception=False)
        self.expect(right, "gradients are not those of finite differences")

    def test_a_closed_form_is_read_back_and_scores_linearly(self) -> None:
        """With the objective "whole", `install` and `solution` are each other's inverse."""
        model = self.model
        if "whole" not in model.objectives:
            return
        rng = np.random.default_rng(7)
        solution = rng.normal(size=(_HEADS, _SHAPE.row_dim + model.intercept)).astype(np.float32)
        state = {name: np.repeat(value[None], _HEADS, axis=0) for name, value in self._fresh().items()}
        model.install(state, solution)
        self.expect(np.array_equal(model.solution(state), solution), "solution is not what install wrote")
        rows = self._rows()
        wide = np.concatenate([rows, np.ones((_HEADS, _ROWS, 1), np.float32)], axis=2) if model.intercept else rows
        linear = np.einsum("bnk,bk->bn", wide, solution)
        self.expect_close(model.batched(state, rows), linear, "a fresh head with a closed form")

    def test_a_residual_head_adds_to_the_linear_part_and_reads_learned_columns(self) -> None:
        """A residual head starts at zero, is trained by itself, and its score can be split over the columns."""
        model, state, rows = self.model, self._state(), self._rows()
        trained = model.head_parameters(state)
        if not model.residual_head:
            self.expect(not trained, "head_parameters names some, and residual_head is false")
            return
        fresh = {name: value[None] for name, value in model.head_parameters(self._fresh()).items()}
        self.expect(fresh, "residual_head is true, and head_parameters names none")
        self.expect(not model.batched_nonlinear(fresh, rows[:1]).any(), "a fresh residual head changes scores")
        linear = np.einsum("bnk,bk->bn", rows, model.solution(state)[:, : _SHAPE.row_dim])
        if model.intercept:
            linear = linear + model.solution(state)[:, -1:]
        nonlinear = model.batched_nonlinear(trained, rows)
        self.expect_close(linear + nonlinear, model.batched(state, rows), "linear and non-linear part")
        learned = model.batched_nonlinear(trained, np.ascontiguousarray(rows[:, :, _SHAPE.fixed_dim :]))
        self.expect_close(learned, nonlinear, "non-linear scores of learned columns alone")
        head = ResidualHead(model, {name: value[0] for name, value in trained.items()}, _SHAPE.row_dim)
        whole = head.contributions(rows[0]).sum(axis=1) + head.empty_score
        self.expect_close(whole, head.scores(rows[0]).astype(np.float64), "the parts of a score and the score")

    def test_a_head_comes_back_from_a_device_s_vault(self) -> None:
        """Parameters survive the form in which devices keep them, to the last bit."""
        from palate.client.vault.heads import pack_head, unpack_head

        for config in self._configs():
            head = {name: value[0] for name, value in self._state().items()}
            read = unpack_head(pack_head(config, _SHAPE, head), config, _SHAPE)
            self.expect(read is not None and read.keys() == head.keys(), "parameters are lost")
            for name, value in (read or {}).items():
                self.expect(np.array_equal(value, head[name]), f"{name} comes back as another")

    def test_the_copy_that_recommends_has_valid_settings(self) -> None:
        """`serving` names parameters of local training, with values that they can have."""
        for config in self._configs():
            serving = serving_training(config)
            try:
                LocalTraining.model_validate(serving.model_dump())
                extra = set(self.model.serving) - set(LocalTraining.model_fields)
            except ValueError:
                extra = set(self.model.serving)
            self.expect(not extra, f"serving has no valid {', '.join(sorted(extra))}")
            objective = serving.objective
            self.expect(objective in self.model.objectives, f"serves with the untrainable {objective!r}")

    def test_one_device_learns_what_it_learns_in_a_batch(self) -> None:
        """A round of local training with every objective: finite, not zero, and the same alone as in a batch."""
        from palate.models.learning.kernel import fresh_heads, select_heads, train

        rng = np.random.default_rng(8)
        lengths = np.array([1, 9, 4])
        histories = Histories(
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            np.concatenate([rng.permutation(_ITEMS)[:length] for length in lengths]).astype(np.int32),
        )
        fixed = rng.normal(size=(_ITEMS, _SHAPE.fixed_dim)).astype(np.float32)
        table = ItemTable(fixed, initial_embeddings(_ITEMS, _SHAPE.dim, scale=0.3, rng=rng))
        keys = np.arange(3, dtype=np.uint64)
        for config in self._configs():
            what = f"objective {config.objective}"
            heads = fresh_heads(table, config, 3)
            together = train(table, histories, heads, keys, config)
            self.expect(np.isfinite(together.update).all(), f"{what}: an update is not finite")
            self.expect(np.abs(together.update).max() > 0.0, f"{what}: nothing is learned")
            total = np.zeros_like(together.update)
            for device in range(3):
                one = np.array([device])
                alone = train(table, histories.select(one), select_heads(heads, one), keys[one], config)
                total += alone.update
                for name, value in alone.heads.items():
                    other = together.heads[name][device].numpy()
                    self.expect_close(value[0].numpy(), other, f"{what}: {name} alone", tolerance=1e-4)
            self.expect_close(total, together.update, f"{what}: the devices' updates and their batch's", tolerance=1e-4)

    def _fresh(self) -> dict[str, Float32Array]:
        """Return a fresh head of the suite's shape."""
        return self.model.initial(_SHAPE, np.random.default_rng(2))

    def _state(self) -> dict[str, Float32Array]:
        """Random parameters of several heads, [heads, ...]."""
        rng = np.random.default_rng(3)
        return {
            name: rng.normal(0.0, 0.7, (_HEADS, *value.shape)).astype(np.float32)
            for name, value in self._fresh().items()
        }

    def _rows(self) -> Float32Array:
        """Random rows for several heads, [heads, n, row_dim]."""
        return np.random.default_rng(4).normal(size=(_HEADS, _ROWS, _SHAPE.row_dim)).astype(np.float32)

    def _configs(self) -> list[LocalTraining]:
        """Small local training with every objective."""
        name = SCORE_MODELS.name_of(self.part)
        return [
            LocalTraining(
                model=name, objective=objective, hidden=_SHAPE.hidden, epochs=2, batch_size=8, regularisation=2.0
            )
            for objective in sorted(self.model.objectives)
        ]


def _tensor(value: Float32Array) -> Tensor:
    import torch

    return torch.from_numpy(value)
