"""No protection: the update leaves the device as it is. Exists for comparisons, and only by name."""

from __future__ import annotations

from palate.privacy.wire import FloatArray, ItemUpdate


class NoProtection:
    """Releases updates exactly. Whoever uses it must say so on every output (`label`)."""

    unit = "none"
    label = "no privacy"

    def release(self, update: FloatArray) -> ItemUpdate:
        """Turn an update of any shape into the vector that leaves, unchanged."""
        return ItemUpdate(update.reshape(-1))
