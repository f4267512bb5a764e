"""The types of the arrays that tables of lesions are computed with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Float32Array = NDArray[np.float32]
IntArray = NDArray[np.int_]
BoolArray = NDArray[np.bool_]
