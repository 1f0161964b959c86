"""The examples in docs/privacy-accounting.md are run, so their figures stay true."""

from __future__ import annotations

import doctest
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "privacy-accounting.md"


def test_documented_examples_give_the_documented_figures():
    outcome = doctest.testfile(str(PAGE), module_relative=False)
    assert outcome.attempted >= 5
    assert outcome.failed == 0
