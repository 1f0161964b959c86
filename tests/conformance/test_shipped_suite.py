"""Palate's own models, datasets, baselines and importers pass the suite that is shipped for those of other packages."""

from __future__ import annotations

import pytest

from palate.data.importers import IMPORTERS
from palate.models.scores.registry import SCORE_MODELS
from palate.simulation.baselines.registry import BASELINES
from palate.testing import (
    BaselineConformance,
    Conformance,
    DatasetConformance,
    ImporterConformance,
    ModelConformance,
)

FLAGS = "|".join("1" if place in (2, 7) else "0" for place in range(19))
SAMPLES = {
    "movielens-ratings": ("ratings.dat", "1::20::5::978300760\n2::21::3::978300761\n"),
    "movielens-100k-ratings": ("u.data", "1\t20\t5\t978300760\n2\t21\t3\t978300761\n"),
    "movielens-movies": ("movies.dat", "20::Heat (1995)::Action|Crime\n21::Clue (1985)::Comedy\n"),
    "movielens-100k-movies": ("u.item", f"20|Heat (1995)|01-Jan-1995||http://x|{FLAGS}\n"),
    "movielens-users": ("users.dat", "1::F::25::10::48067\n2::M::56::16::70072\n"),
    "movielens-100k-users": ("u.user", "1|24|M|technician|85711\n2|53|F|other|94043\n"),
}


def suites() -> list[type[Conformance]]:
    """One class for each part, as another package would write it."""
    models = [type(name, (ModelConformance,), {"part": name}) for name in SCORE_MODELS]
    baselines = [type(name, (BaselineConformance,), {"part": name}) for name in BASELINES]
    importers = [
        type(name, (ImporterConformance,), {"part": name, "file": SAMPLES[name][0], "sample": SAMPLES[name][1]})
        for name in IMPORTERS
    ]
    return [*models, *baselines, *importers, type("demo", (DatasetConformance,), {"part": "demo"})]


CASES = [
    pytest.param(check, id=f"{suite.__name__}-{name}") for suite in suites() for name, check in suite.checks().items()
]


@pytest.mark.parametrize("check", CASES)
def test_a_built_in_part_keeps_a_promise(check):
    check()
