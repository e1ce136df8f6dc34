"""Bars: prices of some instruments on one clock of closing times.

Legend: T bars, M instruments, K extra columns. Everything at index t was known at `times[t]`, the close of the bar, and
nothing before: an observation at t may use rows up to t, and an order decided at t is filled after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from troupe.errors import DataError

__all__ = ["SECONDS_PER_YEAR", "Bars"]

SECONDS_PER_YEAR = 365.25 * 24 * 3600


@dataclass(frozen=True, eq=False)
class Bars:
    """Open, high, low, close and volume. Raises DataError for arrays that do not fit or cannot be prices.

    Where an instrument has no bar of its own that closes at `times[t]` (another calendar), `traded` is False, its
    prices are the last close carried forward, and no order is filled. Before its first bar prices are those of the
    first one's open, and `traded` is False.
    """

    instruments: tuple[str, ...]
    times: np.ndarray  # int64 [T]: closes, seconds since 1970 UTC, rising
    open: np.ndarray  # float64 [T, M], in the instrument's quote currency
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    volume: np.ndarray  # float64 [T, M]; 0 where unknown
    traded: np.ndarray  # bool [T, M]
    close_only: np.ndarray  # bool [M]: the source has closes alone; orders are filled at the next close
    extra: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))  # float64 [T, K]: macro, alternative data
    extra_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        t, m = len(self.times), len(self.instruments)
        if self.extra.size == 0:
            object.__setattr__(self, "extra", np.zeros((t, len(self.extra_names))))
        for name in ("open", "high", "low", "close", "volume", "traded"):
            if getattr(self, name).shape != (t, m):
                raise DataError(f"bars: {name} has shape {getattr(self, name).shape}, not {(t, m)}")
        if self.close_only.shape != (m,) or self.extra.shape != (t, len(self.extra_names)):
            raise DataError("bars: close_only needs one entry per instrument, extra one row per bar")
        if t < 2 or not (np.diff(self.times) > 0).all():
            raise DataError("bars: there must be two or more, and their closing times must rise")
        for name in ("open", "high", "low", "close"):
            prices = getattr(self, name)
            if not (np.isfinite(prices).all() and (prices > 0).all()):
                row, column = np.argwhere(~(np.isfinite(prices) & (prices > 0)))[0]
                raise DataError(
                    f"bars: {name} of {self.instruments[column]} is {prices[row, column]} at row {row}; prices are "
                    "finite and above 0"
                )
        if not np.isfinite(self.extra).all():
            raise DataError("bars: an extra column holds a value that is not finite; fill it with what was known then")

    def __len__(self) -> int:
        return len(self.times)

    @property
    def periods_per_year(self) -> float:
        """Bars per year by their clock: what annualisation multiplies with."""
        return (len(self) - 1) * SECONDS_PER_YEAR / float(self.times[-1] - self.times[0])

    @property
    def periods_per_day(self) -> float:
        """Bars on the usual day: the median over the days that have any, which does not move with the length."""
        return float(np.median(np.unique((self.times - 1) // 86_400, return_counts=True)[1]))

    def between(self, start: int, stop: int) -> Bars:
        """Rows `start` to `stop`."""
        names = ("times", "open", "high", "low", "close", "volume", "traded", "extra")
        return replace(self, **{name: getattr(self, name)[start:stop] for name in names})

    def of(self, instruments: Sequence[str]) -> Bars:
        """Some of the instruments, in this order. Raises DataError for one that is not there."""
        missing = [name for name in instruments if name not in self.instruments]
        if missing:
            raise DataError(f"there are no bars of {missing[0]!r}; there are those of {', '.join(self.instruments)}")
        columns = [self.instruments.index(name) for name in instruments]
        names = ("open", "high", "low", "close", "volume", "traded")
        chosen = {name: getattr(self, name)[:, columns] for name in names}
        return replace(self, instruments=tuple(instruments), close_only=self.close_only[columns], **chosen)
