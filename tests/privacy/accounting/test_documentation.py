"""The examples in the pages about privacy are run, so their figures stay true."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize("page", ["budget.md", "guarantee.md", "privacy-accounting.md"])
def test_documented_examples_give_the_documented_figures(page: str):
    outcome = doctest.testfile(str(DOCS / page), module_relative=False)
    assert outcome.attempted >= 4
    assert outcome.failed == 0
