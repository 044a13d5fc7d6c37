"""Records: the items of a data set and their labels, in memory or in files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
MAX_LABEL = 2**24  # labels travel as float32, which holds whole numbers up to here


class Dataset(Protocol):
    """Items by number. `label` is all labels, None where none are known without reading items."""

    @property
    def label(self) -> Array | None: ...

    def __len__(self) -> int: ...

    def item(self) -> Shape:
        """Returns the shape of the first item, before the transform."""
        ...

    def name(self, number: int) -> str:
        """Returns how a message calls an item."""
        ...

    def take(self, chosen: Array) -> tuple[list[Array] | Array, Array | None]:
        """Returns items of any real dtype, and their labels if there are any."""
        ...


@dataclass(frozen=True, slots=True)
class Records:
    """A data set in memory: `data` (N, ...) of any real dtype, `label` (N, ...) float32 or none."""

    data: Array
    label: Array | None

    def __len__(self) -> int:
        return len(self.data)

    def item(self) -> Shape:
        return tuple(self.data.shape[1:])

    def name(self, number: int) -> str:
        return f"record {number}"

    def take(self, chosen: Array) -> tuple[Array, Array | None]:
        return self.data[chosen], None if self.label is None else self.label[chosen]
