"""The vocabulary of arrays: one name for each dtype; shapes stand in the docstrings, ``float32 [num_items, dim]``."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int32]
LongArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
