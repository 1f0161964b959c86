"""The shipped suite finds what it says that it finds: each broken part fails the check that is about it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from palate.data.importers import Importer
from palate.models.scores.ncf import GMF, NeuMF
from palate.simulation.baselines.popularity import POPULARITY
from palate.simulation.baselines.scorers import ConstantScorer
from palate.simulation.datasets.presets import load
from palate.testing import (
    BaselineConformance,
    ConformanceError,
    DatasetConformance,
    ImporterConformance,
    ModelConformance,
)

RANDOM = np.random.default_rng()


def gmf(**members):
    return type("Mine", (GMF,), {"name": "mine", **members})


def neumf(**members):
    return type("Mine", (NeuMF,), {"name": "mine", **members})


def numpy_only(state, rows):
    scores = GMF.batched(state, rows)
    return scores * 2 if isinstance(scores, np.ndarray) else scores


def detached(state, rows):
    scores = GMF.batched(state, rows)
    return scores if isinstance(scores, np.ndarray) else scores + scores.detach()


MODELS = {
    "fresh_head": gmf(initial=staticmethod(lambda shape, rng: GMF.initial(shape, RANDOM))),
    "finite_and_one": gmf(batched=staticmethod(lambda state, rows: GMF.batched(state, rows) / abs(rows[:, :, 0]))),
    "own_head_and_row": gmf(batched=staticmethod(lambda state, rows: GMF.batched(state, rows) - rows.mean(1)[:, :1])),
    "numpy_and_pytorch": gmf(batched=staticmethod(numpy_only)),
    "gradients": gmf(batched=staticmethod(detached)),
    "closed_form": gmf(solution=classmethod(lambda cls, state: 2 * state["user.weight"][:, 0])),
    "residual_head": neumf(head_parameters=classmethod(lambda cls, state: {})),
    "learns_what": gmf(
        batched=staticmethod(lambda state, rows: GMF.batched(state, rows) * len(rows)), objectives={"bce"}
    ),
    "recommends": gmf(serving={"forgetting": "never"}),
}


def spoiled(change):
    """Popularity whose scores are changed."""
    return replace(
        POPULARITY, name="mine", fit=lambda data: ConstantScorer(change(POPULARITY.fit(data).item_scores, data))
    )


def overwriting(scores, data):
    data.history.items[:] = 0
    return scores


class ByPlace(ConstantScorer):
    def scores(self, users):
        return super().scores(users) + np.arange(len(users), dtype=np.float32)[:, None]


BASELINES = {
    "says_what": replace(POPULARITY, name="mine", label=""),
    "finite_float32": spoiled(lambda scores, data: scores.astype(np.float64)),
    "repeats": spoiled(lambda scores, data: RANDOM.normal(size=len(scores)).astype(np.float32)),
    "leaves_its_data": spoiled(overwriting),
    "who_is_asked": replace(POPULARITY, name="mine", fit=lambda data: ByPlace(POPULARITY.fit(data).item_scores)),
    "why_it_cannot_run": replace(POPULARITY, name="mine", max_items=3),
}


def importer(**changes):
    known = {"name": "mine", "description": "mine", "files": ("*.csv",), "needs": frozenset({"asin"})}
    return Importer(**{**known, "convert": lambda frame: frame.rename({"asin": "item"}), **changes})


IMPORTERS = {
    "says_what": importer(description=""),
    "no_plain_table": importer(needs=frozenset()),
    "row_by_row": importer(convert=lambda frame: frame.rename({"asin": "item"}).head(1)),
    "odd_rows": importer(
        convert=lambda frame: frame.select(pl.col("asin").alias("item"), pl.col("stars").cast(pl.Float64))
    ),
}


def check(suite, about, **members):
    """The check of a suite whose name holds some words, for a part."""
    [name] = [name for name in suite.checks() if about in name]
    return type("Suite", (suite,), members).checks()[name]


@pytest.mark.parametrize("about", MODELS)
def test_a_broken_model_fails_the_check_that_is_about_it(about):
    with pytest.raises(ConformanceError), np.errstate(all="ignore"):
        check(ModelConformance, about, part=MODELS[about])()


@pytest.mark.parametrize("about", BASELINES)
def test_a_broken_baseline_fails_the_check_that_is_about_it(about):
    with pytest.raises(ConformanceError):
        check(BaselineConformance, about, part=BASELINES[about])()


@pytest.mark.parametrize("about", IMPORTERS)
def test_a_broken_importer_fails_the_check_that_is_about_it(about):
    sample = {"file": "shop.csv", "sample": "asin,stars\nB1,5\nB2,4\n"}
    with pytest.raises(ConformanceError):
        check(ImporterConformance, about, part=IMPORTERS[about], **sample)()


@pytest.fixture(scope="module")
def demo():
    return load("demo")


@pytest.mark.parametrize(
    ("about", "spoil"),
    [
        ("ids_are_texts", lambda data: {"users": ("same",) * data.num_users}),
        ("sorted_by_user", lambda data: {"user": data.user[::-1].copy()}),
        ("catalogue_covers", lambda data: {"item": data.item + data.num_items}),
        ("several_users", lambda data: {"item": data.item.astype(np.int64)}),
    ],
)
def test_a_broken_dataset_fails_the_check_that_is_about_it(demo, about, spoil):
    broken = replace(demo, **spoil(demo))
    with pytest.raises(ConformanceError):
        check(DatasetConformance, about, part="demo", interactions=lambda self: broken)()


def test_a_dataset_that_changes_from_load_to_load_is_found(demo):
    turns = iter([demo, replace(demo, users=demo.users[::-1])])
    with pytest.raises(ConformanceError, match="loading it twice"):
        check(DatasetConformance, "loading_again", part="demo", interactions=lambda self: next(turns))()


def test_a_suite_runs_as_a_whole_and_without_pytest():
    code = (
        "import sys\n"
        "from palate.testing import ModelConformance\n"
        "class Mine(ModelConformance):\n    part = 'linear'\n"
        "Mine.run()\n"
        "assert 'pytest' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
