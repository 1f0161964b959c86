"""Codes of the errors that a node answers with: all that the server learns about what went wrong.

Texts never travel: they may quote private data. The device's own log says more.
"""

from __future__ import annotations

from typing import Final

BAD_PLAN: Final = 100
"""A plan, a message or a question that is not understood."""
FAILED: Final = 101
"""Any other failure."""
REFUSED: Final = 102
"""The device's ledger, its owner's limits or a check of secure aggregation refuses the round."""
