"""Sequential: the user code is pooled from the history with weights 1/(1 + age) (power law: Anderson & Schooler 1991).

What somebody wants next depends on the last few interactions most, and on all the others a little. Recommending pools
the rows of the history in a ridge with hyperbolic weights, on the device and in closed form; items still learn from the
broad weights of training, because they need what goes together over months. What that is worth is in
docs/benchmarks.md.

The code is pooled whatever the objective: at objective "bce" items learn as GMF's do, and the stored vector that took
their steps does not recommend.
"""

from __future__ import annotations

from types import MappingProxyType

from palate.models.scores.ncf import GMF


class Sequential(GMF):
    """GMF for items; the copy that recommends is fitted in closed form and forgets hyperbolically."""

    name = "sequential"
    serving = MappingProxyType({"objective": "whole", "forgetting": "hyperbolic"})
