"""Random bars with holes, and the same bars with another future."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from troupe.envs.market.bars import Bars


def walk(seed: int, t: int = 260, m: int = 3, *, holes: float = 0.1, still: int = 0, step: int = 3600) -> Bars:
    """Hourly random walks at levels from 1 to 10,000; some bars missing, the last `still` instruments never moving."""
    generator = np.random.default_rng(seed)
    level = 10.0 ** generator.uniform(0, 4, m)
    open, high, low, close = np.empty((4, t, m))
    volume, traded = np.zeros((t, m)), generator.random((t, m)) >= holes
    traded[0] = True
    last = level
    for row in range(t):
        moves = generator.normal(0, 0.01, (4, m))
        moves[:, m - still :] = 0.0
        path = last * np.cumprod(1 + np.where(traded[row], moves, 0.0), axis=0)
        open[row], close[row], high[row], low[row] = path[0], path[-1], path.max(axis=0), path.min(axis=0)
        volume[row] = np.where(traded[row], generator.integers(1, 1000, m), 0)
        last = path[-1]
    times = 1_420_416_000 + step * np.arange(1, t + 1)  # Monday, 5 January 2015
    return Bars(tuple("ABCDEFGHIJKLMNOP"[:m]), times, open, high, low, close, volume, traded, np.zeros(m, dtype=bool))


def another_future(bars: Bars, row: int, seed: int) -> Bars:
    """The same bars up to and with `row`; after it prices, volumes and calendars are those of another market."""
    other = walk(seed, len(bars), len(bars.instruments), holes=0.3)
    names = ("open", "high", "low", "close", "volume", "traded")
    mixed = {name: np.concatenate([getattr(bars, name)[: row + 1], getattr(other, name)[row + 1 :]]) for name in names}
    return replace(bars, **mixed)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
