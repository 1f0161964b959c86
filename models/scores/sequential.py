"""Sequential: the user code is pooled from the history with weights 1/(1 + age) (power law: Anderson & Schooler 1991).

What somebody wants next depends mostly on the last few interactions, and a little on all the others. Recommending pools
the rows of the history in a ridge with hyperbolic weights, on the device and in closed form. Items still learn with the
broad weights of training, because they need co-occurrences over months. docs/benchmarks.md has the measurements.

The code is pooled for every objective. At objective "bce" items learn as in GMF, and the stored vector that was trained
is not used to recommend.
"""

from __future__ import annotations

from types import MappingProxyType

from palate.models.scores.ncf import GMF


class Sequential(GMF):
    """GMF for items; the copy that recommends is fitted in closed form and forgets hyperbolically."""

    name = "sequential"
    serving = MappingProxyType({"objective": "whole", "forgetting": "hyperbolic"})
