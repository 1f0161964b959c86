"""The conformance suite for models, datasets, baselines and importers; Palate's own parts pass it.

A test file of the other package is three lines; pytest finds the checks in the class, and is not needed otherwise::

    from palate.testing import ModelConformance

    class TestMine(ModelConformance):
        part = Mine                      # or its name

`Mine.run()` of such a class runs all checks without pytest. docs/extending.md shows one of each.
"""

from palate.testing.base import Conformance, ConformanceError
from palate.testing.baselines import BaselineConformance
from palate.testing.datasets import DatasetConformance
from palate.testing.importers import ImporterConformance
from palate.testing.models import ModelConformance

__all__ = [
    "BaselineConformance",
    "Conformance",
    "ConformanceError",
    "DatasetConformance",
    "ImporterConformance",
    "ModelConformance",
]
