"""Mechanisms by unit of protection."""

from __future__ import annotations

from palate.privacy.mechanisms.none import NoProtection

MECHANISMS = {mechanism.unit: mechanism for mechanism in (NoProtection(),)}
"""A unit that is not here has no valid mechanism in this version, and is refused."""
