"""Records: the items of a data set and their labels, as arrays in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Records:
    """A data set. `data` is (N, ...) of any real dtype, `label` is (N, ...) float32 or missing."""

    data: Array
    label: Array | None

    def __len__(self) -> int:
        return len(self.data)
