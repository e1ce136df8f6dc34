"""A window over the newest positions, in columns: what off-policy learners draw their minibatches from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from troupe.errors import DataError

__all__ = ["ReplayWindow"]


class ReplayWindow:
    """The newest `capacity` rows of some columns, oldest first.

    Every column is an array `[n, ...]`; all have the same n, and later appends the same names, types and shapes. Rows
    are addressed by age (0 is the oldest), so that what is drawn does not depend on where a row happens to lie: a
    window that was stored and loaded draws the same minibatches.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise DataError(f"a replay window holds at least 1 row, not {capacity}")
        self.capacity = capacity
        self.added = 0  # rows ever appended
        self._columns: dict[str, np.ndarray] = {}
        self._first = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._columns)

    def append(self, columns: Mapping[str, np.ndarray]) -> None:
        """Adds rows; the oldest go where there is no room. Raises DataError for columns that do not fit."""
        n = self._check(columns)
        if not self._columns:
            self._columns = {
                name: np.zeros((self.capacity, *column.shape[1:]), dtype=column.dtype)
                for name, column in columns.items()
            }
        kept = min(n, self.capacity)
        places = (self._first + self._size + np.arange(n - kept, n)) % self.capacity
        for name, column in columns.items():
            self._columns[name][places] = column[n - kept :]
        overflow = max(0, self._size + n - self.capacity)
        self._first = (self._first + overflow) % self.capacity
        self._size = min(self.capacity, self._size + n)
        self.added += n

    def rows(self, ages: np.ndarray) -> dict[str, np.ndarray]:
        """Copies of the rows with these ages."""
        places = (self._first + ages) % self.capacity
        return {name: column[places] for name, column in self._columns.items()}

    def draw(self, n: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
        """`n` rows, uniformly and with replacement. Raises DataError where there is none."""
        if not self._size:
            raise DataError("the replay window is empty: nothing can be drawn before games were played")
        return self.rows(generator.integers(0, self._size, n))

    def state_dict(self) -> dict[str, Any]:
        return {"added": self.added, "capacity": self.capacity, "columns": self.rows(np.arange(self._size))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes a stored window. Raises DataError for one that is torn or not finite."""
        columns = {name: np.asarray(column) for name, column in state["columns"].items()}
        for name, column in columns.items():
            if column.dtype.kind == "f" and not np.isfinite(column).all():
                raise DataError(f"the stored replay window has a value that is not finite in its column {name!r}")
        self._columns, self._first, self._size = {}, 0, 0
        if columns:
            self.append(columns)
        self.added = int(state["added"])
        if self.added < self._size:
            raise DataError(f"the stored replay window says that {self.added} rows were added and holds {self._size}")

    def _check(self, columns: Mapping[str, np.ndarray]) -> int:
        sizes = {name: len(column) for name, column in columns.items()}
        if len(set(sizes.values())) != 1:
            raise DataError(f"the columns of a replay window need one length, found {sizes}")
        if self._columns and set(columns) != set(self._columns):
            raise DataError(f"the replay window has the columns {sorted(self._columns)}, not {sorted(columns)}")
        for name, own in self._columns.items():
            column = columns[name]
            if (column.dtype, column.shape[1:]) != (own.dtype, own.shape[1:]):
                raise DataError(
                    f"column {name!r} of the replay window holds {own.dtype} {list(own.shape[1:])}, not {column.dtype} "
                    f"{list(column.shape[1:])}"
                )
        return next(iter(sizes.values()))
