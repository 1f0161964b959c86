"""Updates of some devices to the item table, kept as factors: rank one each, plus values on a few rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from palate.models.arrays import BoolArray, Float32Array, Int32Array, Int64Array


@dataclass(frozen=True, eq=False)
class DeviceUpdates:
    """Updates of some devices: ``errors x vector`` each, plus values on a few rows of the item table.

    Attributes
    ----------
    errors
        float32 [num_devices, num_items].
    vectors
        float32 [num_devices, dim].
    indptr
        Device u owns rows[indptr[u]:indptr[u + 1]], int64 [num_devices + 1].
    rows
        Items with further values, which add up where an item is named twice, integers [num_rows].
    row_values
        float32 [num_rows, dim].
    """

    errors: Float32Array
    vectors: Float32Array
    indptr: Int64Array
    rows: Int32Array | Int64Array
    row_values: Float32Array

    @staticmethod
    def rank_one(errors: Float32Array, vectors: Float32Array) -> DeviceUpdates:
        """Build updates without further rows; errors [num_devices, num_items], vectors [num_devices, dim]."""
        nothing = np.zeros((0, vectors.shape[1]), dtype=np.float32)
        indptr = np.zeros(len(vectors) + 1, dtype=np.int64)
        return DeviceUpdates(errors, vectors, indptr, np.zeros(0, dtype=np.int32), nothing)

    @property
    def num_devices(self) -> int:
        """Number of devices."""
        return len(self.vectors)

    def select(self, devices: Int64Array) -> DeviceUpdates:
        """Return the updates of some devices, int64 [n], in that order."""
        lengths = np.diff(self.indptr)[devices]
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        entries = np.repeat(self.indptr[devices] - indptr[:-1], lengths) + np.arange(indptr[-1])
        return DeviceUpdates(
            self.errors[devices], self.vectors[devices], indptr, self.rows[entries], self.row_values[entries]
        )

    def on_rows(self, active: BoolArray) -> DeviceUpdates:
        """Return the updates of the rows that are learned alone, bool [num_items]."""
        kept, place = active[self.rows], np.cumsum(active) - 1
        before = np.concatenate([[0], np.cumsum(kept)])
        return DeviceUpdates(
            self.errors[:, active],
            self.vectors,
            before[self.indptr],
            place[self.rows[kept]],
            self.row_values[kept],
        )

    def dense(self, start: int, stop: int, out: Float32Array | None = None) -> Float32Array:
        """Form the contributions of devices start to stop, float32 [stop - start, dim, num_items]."""
        vectors, errors = self.vectors[start:stop, :, None], self.errors[start:stop, None, :]
        dense: Float32Array = np.multiply(vectors, errors, out=out)
        for device in range(start, stop):
            own = slice(self.indptr[device], self.indptr[device + 1])
            if own.start < own.stop:
                rows, values = torch.from_numpy(self.rows[own]), torch.from_numpy(self.row_values[own])
                torch.from_numpy(dense[device - start]).index_add_(1, rows, values.T)
        return dense
