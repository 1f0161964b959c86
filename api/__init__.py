"""Palate: private taste, shared knowledge. The Python API; docs/api.md is its tutorial.

>>> import palate
>>> data = palate.load("ratings.csv", items="movies.csv")
>>> plan = palate.plan(data, epsilon=8)
>>> run = palate.simulate(data, plan)
>>> run.metrics, run.guarantee, run.audit(), run.recommend(user="42")

Every name below is imported when it is first used: `import palate` alone loads no numerical library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the same names for type checkers and editors, which do not run __getattr__
    from palate.loading import Data, load
    from palate.planning import plan
    from palate.running import AuditResult, Guarantee, Metrics, Run, compare, simulate
    from palate.simulation.planning import Plan
    from palate.simulation.progress import Progress
    from palate.simulation.report.comparing import Comparison
    from palate.simulation.report.recommending import Recommended
    from palate.tables import Table

    __version__: str

__all__ = [
    "AuditResult",
    "Comparison",
    "Data",
    "Guarantee",
    "Metrics",
    "Plan",
    "Progress",
    "Recommended",
    "Run",
    "Table",
    "__version__",
    "compare",
    "load",
    "plan",
    "simulate",
]

_HOMES = {
    "AuditResult": "palate.running",
    "Comparison": "palate.simulation.report.comparing",
    "Data": "palate.loading",
    "Guarantee": "palate.running",
    "Metrics": "palate.running",
    "Plan": "palate.simulation.planning",
    "Progress": "palate.simulation.progress",
    "Recommended": "palate.simulation.report.recommending",
    "Run": "palate.running",
    "Table": "palate.tables",
    "compare": "palate.running",
    "load": "palate.loading",
    "plan": "palate.planning",
    "simulate": "palate.running",
}

if not TYPE_CHECKING:  # a checker that saw this function would let every misspelt name pass

    def __getattr__(name: str) -> object:
        """Import a name of the facade when it is first used."""
        if name == "__version__":
            from importlib.metadata import version

            found: object = version("palate")
        elif name in _HOMES:
            from importlib import import_module

            found = getattr(import_module(_HOMES[name]), name)
        else:
            raise AttributeError(f"module 'palate' has no attribute {name!r}")
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    """List the facade's names, imported or not."""
    return sorted({*globals(), *__all__})
