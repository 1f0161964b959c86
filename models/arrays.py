"""Array types: one name for each dtype. Shapes are in the docstrings: ``float32 [num_items, dim]``."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
UInt8Array = npt.NDArray[np.uint8]
UInt16Array = npt.NDArray[np.uint16]
UInt32Array = npt.NDArray[np.uint32]
UInt64Array = npt.NDArray[np.uint64]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
StrArray = npt.NDArray[np.str_]

IntegerArray = npt.NDArray[np.integer]  # any integer dtype
FloatingArray = npt.NDArray[np.floating]  # any floating dtype
AnyArray = npt.NDArray[Any]  # any dtype at all
