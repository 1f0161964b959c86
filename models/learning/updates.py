"""Updates of some devices to the item table, kept small: factors of rank one, or values on single rows only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from palate.models.arrays import BoolArray, Float32Array, Int64Array
from palate.models.histories import Histories, offsets


@dataclass(frozen=True, eq=False)
class RowValues:
    """Values on single rows of the item table, device by device.

    Attributes
    ----------
    rows
        Items of each device that have values; a device may name an item twice, and its values add up.
    values
        float32 [number of items, dim].
    """

    rows: Histories
    values: Float32Array

    @staticmethod
    def joined(parts: Sequence[RowValues]) -> RowValues:
        """Put several values of the same devices together; at least one part."""
        if len(parts) == 1:
            return parts[0]
        lengths = np.sum([part.rows.lengths for part in parts], axis=0)
        grouped = np.argsort(np.concatenate([part.rows.owners for part in parts]), kind="stable")
        items = np.concatenate([part.rows.items for part in parts])[grouped]
        return RowValues(Histories(offsets(lengths), items), np.concatenate([part.values for part in parts])[grouped])

    def select(self, devices: Int64Array) -> RowValues:
        """Return the values of some devices, int64 [n], in that order."""
        return RowValues(self.rows.select(devices), self.values[self.rows.entries(devices)])

    def where(self, kept: BoolArray) -> RowValues:
        """Return some of the values, bool [number of items]."""
        before = np.concatenate([[0], np.cumsum(kept)])
        return RowValues(Histories(before[self.rows.indptr], self.rows.items[kept]), self.values[kept])

    def on_own_items(self, histories: Histories, num_items: int) -> RowValues:
        """Return the values on items that are in the histories of these devices, given in the same order."""
        own = histories.owners.astype(np.int64) * num_items + histories.items
        return self.where(np.isin(self.rows.owners.astype(np.int64) * num_items + self.rows.items, own))

    def total(self, num_items: int) -> Float32Array:
        """Sum over devices, float32 [num_items, dim]."""
        total = torch.zeros(num_items, self.values.shape[1])
        items = torch.from_numpy(self.rows.items).long()  # an int32 index takes a slower path
        total.index_add_(0, items, torch.from_numpy(self.values))
        return np.asarray(total.numpy())


@dataclass(frozen=True, eq=False)
class Updates:
    """Updates of some devices: ``errors x vector`` each, plus values on single rows of the item table.

    Attributes
    ----------
    errors
        float32 [num_devices, num_items].
    vectors
        float32 [num_devices, dim].
    further
        What is added on single rows; None where nothing is.
    """

    errors: Float32Array
    vectors: Float32Array
    further: RowValues | None = None

    @property
    def num_devices(self) -> int:
        """Number of devices."""
        return len(self.vectors)

    @property
    def dim(self) -> int:
        """Values of a row."""
        return int(self.vectors.shape[1])

    @property
    def num_items(self) -> int:
        """Rows of the table."""
        return int(self.errors.shape[1])

    @property
    def size(self) -> int:
        """Values of one device's update."""
        return self.dim * self.num_items

    @property
    def fewest_values(self) -> Int64Array:
        """Values of each device's update that are not zero, by its factors: at least so many, int64 [num_devices]."""
        filled = self.errors != 0.0
        per_column = self.num_items if filled.all() else np.count_nonzero(filled, axis=1)  # counting takes far longer
        products: Int64Array = per_column * np.count_nonzero(self.vectors, axis=1)
        return products - (0 if self.further is None else self.dim * self.further.rows.lengths)

    @property
    def blocks(self) -> tuple[Float32Array, ...]:
        """The arrays that every value is made of."""
        return self.errors, self.vectors, *([] if self.further is None else [self.further.values])

    def select(self, devices: Int64Array) -> Updates:
        """Return the updates of some devices, int64 [n], in that order."""
        further = None if self.further is None else self.further.select(devices)
        return Updates(self.errors[devices], self.vectors[devices], further)

    def on_rows(self, active: BoolArray) -> Updates:
        """Return the updates of only the rows that are learned, bool [num_items]."""
        further = self.further
        if further is not None:
            kept = further.where(active[further.rows.items])
            place = (np.cumsum(active) - 1).astype(np.int32)
            further = RowValues(Histories(kept.rows.indptr, place[kept.rows.items]), kept.values)
        return Updates(self.errors[:, active], self.vectors, further)

    def dense(self, start: int, stop: int, out: Float32Array | None = None) -> Float32Array:
        """Form the updates of devices start to stop as they leave, float32 [stop - start, dim, num_items]."""
        vectors, errors = self.vectors[start:stop, :, None], self.errors[start:stop, None, :]
        dense: Float32Array = np.multiply(vectors, errors, out=out)
        if self.further is None:
            return dense
        indptr, columns = self.further.rows.indptr, self.num_items * np.arange(self.dim)
        for device in range(start, stop):
            own = slice(indptr[device], indptr[device + 1])
            places = self.further.rows.items[own, None] + columns  # [n, dim], in the flat update
            # unlike indexing, this adds up what falls on the same place, in order
            np.add.at(dense[device - start].reshape(-1), places.reshape(-1), self.further.values[own].reshape(-1))
        return dense


@dataclass(frozen=True, eq=False)
class SparseUpdates:
    """Updates of some devices that have values on single rows of the item table only.

    Attributes
    ----------
    rows
        Items of each device that have values, in ascending order and each once.
    values
        float32 [number of items, dim].
    num_items
        Rows of the table.
    """

    rows: Histories
    values: Float32Array
    num_items: int

    @staticmethod
    def of(parts: Sequence[RowValues], num_items: int) -> SparseUpdates:
        """Add up values of the same devices, at least one part, in the order of the parts."""
        together = RowValues.joined(parts)
        devices, slots = together.rows.num_users, together.rows.owners.astype(np.int64) * num_items
        slots += together.rows.items
        order = np.argsort(slots, kind="stable")
        slots = slots[order]
        first = np.ones(len(slots), dtype=np.bool_)
        np.not_equal(slots[1:], slots[:-1], out=first[1:])
        if first.all():
            values = together.values[order]
        else:
            import scipy.sparse as sp  # here, because a device that only recommends does not need SciPy

            begins = np.append(np.flatnonzero(first), len(slots))
            adding = sp.csr_matrix((np.ones(len(slots), np.float32), order, begins), (len(begins) - 1, len(slots)))
            values = np.asarray(adding @ together.values)
        slots = slots[first]
        rows = Histories.grouped(slots // num_items, (slots % num_items).astype(np.int32), devices)
        return SparseUpdates(rows, values, num_items)

    @property
    def num_devices(self) -> int:
        """Number of devices."""
        return self.rows.num_users

    @property
    def dim(self) -> int:
        """Values of a row."""
        return int(self.values.shape[1])

    @property
    def size(self) -> int:
        """Values of one device's update."""
        return self.dim * self.num_items

    @property
    def blocks(self) -> tuple[Float32Array, ...]:
        """The arrays that every value is made of."""
        return (self.values,)

    def select(self, devices: Int64Array) -> SparseUpdates:
        """Return the updates of some devices, int64 [n], in that order."""
        return SparseUpdates(self.rows.select(devices), self.values[self.rows.entries(devices)], self.num_items)

    def on_rows(self, active: BoolArray) -> SparseUpdates:
        """Return the updates of only the rows that are learned, bool [num_items]."""
        kept = RowValues(self.rows, self.values).where(active[self.rows.items])
        place = (np.cumsum(active) - 1).astype(np.int32)
        return SparseUpdates(
            Histories(kept.rows.indptr, place[kept.rows.items]), kept.values, int(np.count_nonzero(active))
        )

    def dense(self, start: int, stop: int, out: Float32Array | None = None) -> Float32Array:
        """Form the updates of devices start to stop as they leave, float32 [stop - start, dim, num_items]."""
        dense = np.empty((stop - start, self.dim, self.num_items), dtype=np.float32) if out is None else out
        dense[:] = 0.0
        own = slice(self.rows.indptr[start], self.rows.indptr[stop])
        owners = np.repeat(np.arange(stop - start), self.rows.lengths[start:stop])
        dense[owners, :, self.rows.items[own]] = self.values[own]
        return dense
